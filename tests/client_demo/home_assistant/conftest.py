"""Excludes the tests that run in Home Assistant's own environment, which test_core_environment.py starts."""

collect_ignore = ["core"]
