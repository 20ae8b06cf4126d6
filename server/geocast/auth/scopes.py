"""The permissions that a token may carry: scopes (protocol, section 6)."""

PUBLISH, MANAGE, AUDIT = "alerts:publish", "alerts:manage", "alerts:audit"
RECEIVE, TEST = "alerts:receive", "alerts:test"
DISPATCH = "calls:dispatch"
SCOPES = (PUBLISH, MANAGE, AUDIT, RECEIVE, TEST, DISPATCH)
