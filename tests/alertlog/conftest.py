"""Pytest explains the assertions of the contract that all logs share."""

import pytest

pytest.register_assert_rewrite("alertlog.contract", "alertlog.contract_of_kinds")
