"""What a token may allow (protocol, section 6): its scopes."""

PUBLISH, MANAGE, AUDIT = "alerts:publish", "alerts:manage", "alerts:audit"
RECEIVE, TEST = "alerts:receive", "alerts:test"
SCOPES = (PUBLISH, MANAGE, AUDIT, RECEIVE, TEST)
