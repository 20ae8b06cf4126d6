"""No document costs much memory or CPU, as a message (CP3) or as a feed (FE2)."""

import json
import subprocess
import sys

import pytest
from ingest import hostile

READ = {  # documents that are odd, but cheap
    "20,000 namespaces beside each other",
    "references",
    "one long text",
}


@pytest.mark.parametrize("kind", ["cap", "feed"])
def test_hostile_document_costs_less_than_64_mb_and_two_seconds(kind):
    """It is refused or read; the process that reads it may not have more memory (rules CP3, FE2)."""
    done = subprocess.run([sys.executable, hostile.__file__, kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == (1 if kind == "cap" else 2) * len(hostile.INSIDE) + 2
    assert [each for each in answers if each[1] == "no memory" or each[2] > 2] == []
    if kind == "cap":
        assert {name for name, answer, _ in answers if answer == "read"} <= READ
