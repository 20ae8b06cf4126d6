"""Names that several modules of the integration use."""

DOMAIN = "geocast"

CONF_TOKEN_URL = "token_url"
CONF_MIN_SEVERITY = "min_severity"

SEVERITIES = ("extreme", "severe", "moderate", "minor")
"""The severities of alerts, the highest first."""
