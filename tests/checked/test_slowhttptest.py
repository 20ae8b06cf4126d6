"""slowhttptest against all listeners: slow heads, slow bodies and slow reads must not shut anybody out."""

import csv
import re
import subprocess

import pytest
from checked.tool import Tool
from end_to_end.conftest import certificate, service  # noqa: F401 (fixtures)
from end_to_end.kit.push import Push

TOOL = Tool("slowhttptest", "slow clients of each listener", debian=("slowhttptest",), commands=("slowhttptest",))
pytestmark = pytest.mark.checked
CONNECTIONS, SECONDS = 250, 40  # a head has 10 s (protocol.md, BA1 and S5), a body a little longer
HEADS, BODIES, READS = "-H", "-B", "-X"


@pytest.fixture(scope="module")
def push(node, certificate, tmp_path_factory):  # noqa: F811
    """Start `geocast push` beside the node."""
    from support.push_service import PushService

    with PushService(certificate) as service, Push(node, service) as push:  # noqa: F811
        yield push


@pytest.mark.parametrize("kind", [HEADS, BODIES, READS], ids=["heads", "bodies", "reads"])
@pytest.mark.parametrize("listener", ["stream", "api", "feed", "push"])
def test_slow_clients_are_hung_up_on_and_shut_nobody_out(record_property, node, push, tmp_path, listener, kind):
    """While all of them hang on, the tool's own quick request is answered; at the end no slow one is left."""
    url, method = {
        "stream": (f"http://127.0.0.1:{node.stream_port}/v1/stream", "GET"),
        "api": (f"http://127.0.0.1:{node.api_port}/v1/alerts", "POST" if kind == BODIES else "GET"),
        "feed": (f"{node.feed.base_url}/v1/alerts.geojson", "GET"),
        "push": (f"http://127.0.0.1:{push.port}/v1/push", "GET"),
    }[listener]
    # The tool has no option for a token; its option for `Accept` is written into the head as it is.
    accept = f"*/*\r\nAuthorization: Bearer {node.desk}"
    count = ("-c", str(CONNECTIONS), "-r", "125", "-l", str(SECONDS))
    command = ["slowhttptest", kind, *count, "-i", "2", "-p", "5", "-t", method, "-m", accept, "-u", url]
    done = subprocess.run(
        [*command, "-g", "-o", str(tmp_path / "found")],
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)[-2_000:]
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    # The last row is of the last whole second, so it lacks what came after that.
    assert max(int(row["Connected"]) + int(row["Closed"]) for row in rows) >= CONNECTIONS / 2, said
    assert all(int(row["Service Available"]) for row in rows), said
    if (
        kind != READS
    ):  # what is read slowly may fit into the kernel's buffers, and is then none of the server's business
        assert "No open connections left" in said, said
    record_property("cases", CONNECTIONS)
