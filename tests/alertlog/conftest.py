"""The registration of the contract with pytest, which then explains its failed assertions."""

import pytest

pytest.register_assert_rewrite("alertlog.contract", "alertlog.contract_of_kinds")
