"""The command `python -m client_demo listen --push`: a sleeping phone on this machine that `geocast push` wakes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h3
import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.earth import Point
from end_to_end.kit.node import Node, clean_environment, free_ports
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE

from client_demo.push_service import Certificate, make_certificate

ROOT = Path(__file__).parents[3]


class Service(NamedTuple):
    """The port and the certificate of the push service that the command will run."""

    port: int
    certificate: Certificate


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def service(node: Node) -> Service:
    """Return the service, whose certificate exists before `geocast push` starts."""
    return Service(free_ports(1)[0], make_certificate(node.home / "push-ca.pem"))


@pytest.fixture(scope="module")
def push(node: Node, service: Service) -> Iterator[Push]:
    """Start `geocast push` beside the node."""
    with Push(node, service) as push:
        yield push
        push.assert_no_surprise()


class ListenCommand:
    """A process that runs the command."""

    def __init__(self, node: Node, push: Push, service: Service, spot: Point, *options: str, sub: str = "sleeper"):
        self.output_file = node.home / f"{sub}.txt"
        run = [
            *(sys.executable, "-m", "client_demo", "listen", "--push", f"http://127.0.0.1:{push.port}"),
            *("--push-port", str(service.port), "--push-ca", str(service.certificate.crt)),
            *(
                "--url",
                f"ws://127.0.0.1:{node.stream_port}/v1/stream",
                "--lat",
                str(spot[0]),
                "--lng",
                str(spot[1]),
                *options,
            ),
        ]
        environment = clean_environment(GEOCAST_TOKEN=push.token(sub=sub), PYTHONUNBUFFERED="1")
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                run, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL
            )

    def __enter__(self) -> ListenCommand:
        self.sees("registered until")
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 130, self.output()
        assert "Traceback" not in self.output()

    def output(self) -> str:
        """Return everything that the command has printed."""
        return self.output_file.read_text("utf-8", errors="replace")

    def sees(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches `pattern`, and return the match."""

        def found() -> Any:
            assert self.process.poll() is None, self.output()
            return re.search(pattern, self.output(), re.MULTILINE)

        try:
            return wait_until(found, pattern)  # type: ignore[no-any-return]
        except AssertionError:
            raise AssertionError(f"no line like {pattern} in\n{self.output()}") from None


def test_listen_command_prints_a_line_for_each_push_until_the_cancel(node: Node, push: Push, service: Service):
    """A line says what a phone would show; after Ctrl-C the device is forgotten (rules WPC2 to WPC5)."""
    spot = ground()
    body = alert(spot, headline="Smoke.")
    with ListenCommand(node, push, service, spot) as phone:
        assert phone.sees(r"--push-services localhost:(\d+) --push-private localhost --push-ca")
        node.publish(body)
        phone.sees(r"^shown +heard  .*  Smoke\.  until .*\d\d:\d\d$")
        node.revise({**revision_of(body, 2), "headline": "More smoke."})
        phone.sees(r"^replaced +heard  .*  More smoke\.  until .*\d\d:\d\d$")
        node.cancel(body["id"], 3)
        phone.sees(r"^replaced +silent  ?Called off: ")
    wait_until(lambda: push.metric("push_devices") == 0, "the device has been forgotten")


def test_listen_command_fetches_the_rest_of_a_shortened_push_over_the_stream(node: Node, push: Push, service: Service):
    """The rest of the alert comes by the stream (rule WPT1)."""
    spot = ground()
    with ListenCommand(node, push, service, spot, sub="fetcher") as phone:
        node.publish(alert(spot, headline="Long.", description="🔥" * 1_000))
        phone.sees(r"^shown +heard  .*  Long\.")
        phone.sees(r"^new .*Long\..*revision 1\]")


def test_listen_command_says_that_the_phone_is_outside_if_only_its_cell_is_inside(
    node: Node, push: Push, service: Service
):
    """The server knows only the phone's cell; the phone knows its place in it (rules C4, WPC5)."""
    spot = h3.cell_to_latlng(cell(ground()))
    told = cell(spot, 8)
    middle, corner = (
        h3.cell_to_latlng(told),
        max(h3.cell_to_boundary(told), key=partial(h3.great_circle_distance, spot)),
    )
    here = tuple(0.1 * a + 0.9 * b for a, b in zip(middle, corner, strict=True))
    area = {"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": 100}
    with ListenCommand(node, push, service, here, sub="neighbour") as phone:
        node.publish(alert(spot, headline="Small.", area=area))
        phone.sees(r"^shown +heard  .*  Small\.  Not where you are\.  until")


def test_listen_command_prints_one_line_if_the_server_refuses_the_registration(
    node: Node, push: Push, service: Service
):
    """The server refuses a port that `--push-services` does not have, and a bad token."""
    other = Service(free_ports(1)[0], service.certificate)
    phone = ListenCommand(node, push, other, ground(), sub="refused")
    assert phone.process.wait(PATIENCE) == 1
    assert "error: /subscription/endpoint: " in phone.output()
    assert "Traceback" not in phone.output()
    phone = ListenCommand(node, push, service, ground(), "--token", "x", sub="stranger")
    assert phone.process.wait(PATIENCE) == 1
    assert "error: " in phone.output()
    assert "Traceback" not in phone.output()
