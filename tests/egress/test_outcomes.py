"""The outcome of each HTTP status."""

import pytest

from geocast.egress.outcomes import PostOutcome, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, PostOutcome.SENT) for status in (200, 201, 202, 204)),
        *((status, PostOutcome.GONE) for status in (404, 410)),
        (413, PostOutcome.LARGE),
        *((status, PostOutcome.REFUSED) for status in (301, 302, 307, 308, 400, 401, 403, 405, 418)),
        *((status, PostOutcome.BUSY) for status in (429, 503)),
        *((status, PostOutcome.FAILED) for status in (500, 502, 504, 507)),
    ],
)
def test_each_http_status_has_its_documented_outcome(status, outcome):
    assert outcome_of(status) is outcome
