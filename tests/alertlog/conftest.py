"""Registration of the contract tests with pytest, which then explains their failed assertions."""

import pytest

pytest.register_assert_rewrite("alertlog.contract", "alertlog.contract_of_kinds")
