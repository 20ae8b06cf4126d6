"""Geocast: a server that accepts approved alerts over HTTP and pushes each over WebSockets to the subscribers inside.

An alert passes through these packages and modules:

    api                  receives the bytes of a POST
    ingest               applies the policy: bytes -> an accepted Entry, or a 422 with every broken rule
    alertlog             appends the Entry, which is durable before the 201
    stream.log_reader    follows the log, including the process's own appends: Entry, Entry, … in order
    stream.live_alerts   keeps the current alerts, and which subscriber was sent which revision
    stream.fanout        finds the recipients (matching: area -> subscribers with a place inside), some at a time
    stream.hub           has wire encode the Entry once per wire format, and writes the frame to the sessions
    stream.connection    holds the WebSocket connections; messages of subscribers go from session to hub

The path is the same for any number of processes and nodes. ARCHITECTURE.md shows which package may import which, and a
test checks that.
"""

__version__ = "0.1.0"


def commit() -> str:
    """Return the first 12 digits of the git commit of this code: of the build, or of the source tree; "" if unknown."""
    import subprocess
    from pathlib import Path

    home = Path(__file__).parent
    built = home / "commit.txt"  # written by requirements/commit_hook.py, only into packages
    if built.exists():
        return built.read_text("ascii").strip()
    root = home.parents[1]
    if not ((root / ".git").exists() and (root / "pyproject.toml").exists()):
        return ""
    git = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
