"""The two programs of client_demo/python/README.md, run as they stand there: one listens, the other publishes."""

import re
import subprocess
import sys
from pathlib import Path

from end_to_end.keys import DESK_SCOPE, PHONE_SCOPE
from end_to_end.node import clean_environment
from end_to_end.times import wait_until

ROOT = Path(__file__).parents[2]


def programs(node):
    """The Python of the README, for this node's ports."""
    text = (ROOT / "client_demo" / "python" / "README.md").read_text("utf-8")
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{node.stream_port}")
    return re.findall(
        r"^```python\n(.*?)^```", text.replace("127.0.0.1:8766", f"127.0.0.1:{node.api_port}"), re.DOTALL | re.MULTILINE
    )


def test_the_programs_of_the_readme_tell_and_are_told(own_node, tmp_path):
    """A newcomer's first ten minutes."""
    node, output = own_node, tmp_path / "heard.txt"
    listen, publish = programs(node)
    tokens = {
        "PHONE": node.keys.token(sub="phone", scope=PHONE_SCOPE),
        "DESK": node.keys.token(sub="desk-7", scope=DESK_SCOPE),
    }
    environment = clean_environment(**tokens)
    with output.open("wb") as file:
        listener = subprocess.Popen(
            [sys.executable, "-u", "-c", listen], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", publish],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("published, until 20")
        wait_until(output.read_text, "it is heard")
    finally:
        listener.kill()
        listener.wait()
    assert output.read_text() == "new Building on fire. Keep windows closed.\n"
