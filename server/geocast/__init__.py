"""Geocast: accepts approved alerts over HTTP, and pushes each over WebSockets to the subscribers inside its area.

An alert passes through these packages and modules:

    api                  receives the bytes of a POST
    ingest               applies the policy: bytes -> an accepted Entry, or a 422 with every broken rule
    alertlog             appends the Entry to the log durably, before the publisher gets its 201
    stream.log_reader    reads all entries of the log in order, including those that this process has appended
    stream.live_alerts   stores the live alerts, and which subscriber was sent which revision
    stream.fanout        finds the recipients (with matching: area -> subscribers with a place inside), some at a time
    stream.hub           encodes the Entry once per wire format (with wire), and writes the frames to the sessions
    stream.connection    the WebSocket connections, which write the frames to sockets

The path is the same for any number of processes and nodes. ARCHITECTURE.md shows which package may import which, and a
test checks that.
"""

__version__ = "0.2.0"


def commit() -> str:
    """Return the first 12 hex digits of the git commit from which this code was built; "" if it is unknown.

    When the code runs in its source tree, this is the commit that is checked out.
    """
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
