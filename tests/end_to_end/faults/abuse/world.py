"""A deployment under attack: one or two nodes, `geocast push`, the good parties and the attacker's process.

A seed decides what the attacker does.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.faults.abuse.attacker import Target
from end_to_end.faults.abuse.attacks import Attack
from end_to_end.faults.abuse.parties import Parties, Ports
from end_to_end.faults.abuse.services import GOOD_HOST, RETRY_AFTER_S, ZONE, PushServices, library
from end_to_end.faults.abuse.tally import Round, Tally, Verdict
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import Json
from end_to_end.kit.cluster import on_one_redis
from end_to_end.kit.dispatcher import make_call_key
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import SURPRISE, Node
from end_to_end.kit.proofs import Reviewer
from end_to_end.kit.push import Push
from jwt.algorithms import OKPAlgorithm
from support.ports import free_ports

from client_demo.push_service import make_certificate

DRAIN_S = 3
STARTS_WITHIN_S = 60.0  # time for the attacker's process to start on a busy machine
STOPS_WITHIN_S = 60.0  # time for the attacker to report after its end; each request has its own timeout
REST_S = 12.0  # pause between turns, in which everything that an attacker has begun ends (BA1a)
MAX_LINE = 100_000  # characters of a log line; longer lines are an error
POLICY = """
name = "abuse"
audience = "abuse.example"
[categories.burglary]
title = "Burglary"
polygons = true
simplify_m = 5000
[categories.hostage]
title = "Hostage situation"
approvals = 2
cancel_approvals = 1
[categories.flood]
title = "Flood"
polygons = true
simplify_m = 5000
max_radius_m = 3_000_000
cap = ["event:flood"]
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr"]
rings_m = [1500]
seats = ["cpr", "cpr"]
rest_s = 0
"""
AGGREGATOR_SECRET = "what only the aggregator knows, and sells"
SOURCES = """
[sources.{name}]
approver = "the duty forecaster"
senders = ["{sender}"]
secret_sha256 = "{digest}"
"""


class TwoIssuers(Keys):
    """The keys of two issuers: the usual one may grant qualifications, the other may not (rule HD5)."""

    def __init__(self) -> None:
        super().__init__(quals=["cpr"])
        self.other = Ed25519PrivateKey.generate()

    def jwks(self) -> Json:
        """Return the content of the key file."""
        public = OKPAlgorithm.to_jwk(self.other.public_key(), as_dict=True)
        other = {"kty": "OKP", "crv": "Ed25519", "x": public["x"], "kid": "other", "alg": "EdDSA"}
        return {"keys": [*super().jwks()["keys"], other | {"iss": "https://other.example"}]}


class AttackedDeployment:
    """The processes that are attacked, and the good parties, which must not notice the attack."""

    def __init__(self, folder: Path, *, subscribers: int, devices: int, on_redis: bool = False, seed: int = 1) -> None:
        self.seed, self.turn = seed, 0
        self._attacker: asyncio.subprocess.Process | None = None
        self._stack = ExitStack()
        self._runner = asyncio.Runner(debug=False)  # the debug mode would distort the durations measured here
        self._reviewers = [Reviewer(f"r-{n}", f"key-{n}") for n in (1, 2)]
        self._keys = TwoIssuers()
        try:
            self._start(folder, on_redis)
            feeds = [int(node.options[node.options.index("--feed") + 1].rpartition(":")[2]) for node in self.nodes]
            ports = [Ports(n.stream_port, n.api_port, feed) for n, feed in zip(self.nodes, feeds, strict=True)]
            self.parties = Parties(
                ports, self.push.port, self.services, self._keys, subscribers=subscribers, devices=devices
            )
            self._target = self._described(ports[0])
        except BaseException:
            self._stack.close()
            raise

    def _start(self, folder: Path, on_redis: bool) -> None:
        shared = self._files(folder)
        certificate = make_certificate(folder / "push-ca.pem", names=["localhost", f"*.{ZONE}"])
        self.services = self._stack.enter_context(PushServices(certificate))
        log = None
        if on_redis:
            cluster = self._stack.enter_context(
                on_one_redis(folder, self._keys, *[(*shared, *self._feed()) for _ in range(2)])
            )
            self.nodes, log = cluster.nodes, cluster.redis.url
        else:
            self.nodes = [self._stack.enter_context(Node(folder, self._keys, *shared, *self._feed()))]
        self.log = log or f"sqlite:{self.nodes[0].log_file}"
        options = (
            *("--policy", str(folder / "policy.toml"), "--reviewers", str(folder / "reviewers.jwks")),
            *("--push-services", self.services.entry, "--push-private", f"{GOOD_HOST},localhost"),
        )
        self.push = self._stack.enter_context(Push(self.nodes[0], self.services, options=options, log=log, **library()))

    @staticmethod
    def _feed() -> tuple[str, ...]:
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        return "--feed", f"127.0.0.1:{port}", "--feed-url", url, "--feed-sender", "alerts@city.example", "--feed-areas"

    def _files(self, folder: Path) -> tuple[str, ...]:
        """Write the files that all nodes share; return the options that name them."""
        (folder / "policy.toml").write_text(POLICY)
        (folder / "reviewers.jwks").write_text(json.dumps({"keys": [each.public() for each in self._reviewers]}))
        make_call_key(folder)
        sources = {
            "met": (warnings_of_cap.SENDER, warnings_of_cap.SECRET),
            "aggregator": ("evil@example.org", AGGREGATOR_SECRET),
        }
        (folder / "sources.toml").write_text(
            "".join(
                SOURCES.format(name=name, sender=sender, digest=hashlib.sha256(secret.encode()).hexdigest())
                for name, (sender, secret) in sources.items()
            )
        )
        files = {
            "--policy": "policy.toml",
            "--cap-sources": "sources.toml",
            "--reviewers": "reviewers.jwks",
            "--call-keys": "call-keys.jwks",
        }
        named = [word for option, name in files.items() for word in (option, str(folder / name))]
        return (*named, "--drain-s", str(DRAIN_S))

    def _described(self, ports: Ports) -> Target:
        """Return what the attacker's process needs.

        Only its own code, not its keys, limits it to tokens of low privilege.
        """
        return Target(
            stream=ports.stream,
            api=ports.api,
            feed=ports.feed,
            push=self.push.port,
            log=self.log,
            key=self._keys.private.private_bytes_raw().hex(),
            other_key=self._keys.other.private_bytes_raw().hex(),
            reviewers=[each.private() for each in self._reviewers],
            cap_secret=AGGREGATOR_SECRET,
            push_port=self.services.port,
            push_host=GOOD_HOST,
            responder="responder-0",
        )

    # -- rounds without and with an attack

    def attack(self, attack: Attack, seconds: float, quiet_s: float, turns: int = 1) -> Verdict:
        """Let the good parties work, alternately without the attack and under it; return the verdict."""
        return self._runner.run(self._attack(attack, seconds, quiet_s, turns))

    async def _attack(self, attack: Attack, seconds: float, quiet_s: float, turns: int) -> Verdict:
        verdict = Verdict(attack.name, attack.rule)
        for number in range(turns):
            if number:
                await asyncio.sleep(REST_S)
            quiet = await self._quiet(quiet_s) if quiet_s else Tally()
            attacked = await self._under(attack, seconds / turns, verdict)
            verdict.rounds.append(Round(quiet, attacked))
            verdict.wrong["the good parties did nothing meanwhile"] += int(not attacked.took)
            progress(f"{attack.name}: turn {number + 1}: quiet: {quiet.summary()}")
            progress(f"{attack.name}: turn {number + 1}: under attack: {attacked.summary()}")
        verdict.after = await self._quiet(0)
        self._look_at_processes(verdict.wrong)
        verdict.wrong = +verdict.wrong
        return verdict

    async def _quiet(self, seconds: float) -> Tally:
        await self.parties.begin()
        await asyncio.sleep(seconds)
        return await self.parties.end()

    async def _under(self, attack: Attack, seconds: float, verdict: Verdict) -> Tally:
        await self.parties.arrive()
        attacker = await self._launch(attack, seconds)
        await self.parties.begin()
        try:
            async with asyncio.timeout(seconds + STOPS_WITHIN_S):
                assert attacker.stdout
                report = await attacker.stdout.readline()
        except TimeoutError:
            report = b""
        tally = await self.parties.end()
        if not report:
            await self._end_attacker()
        assert report, f"the attacker of {attack.name} has ended without a report"
        said = json.loads(report)
        verdict.said += Counter(said["said"])
        verdict.wrong += Counter(said["wrong"])
        return tally

    async def _launch(self, attack: Attack, seconds: float) -> asyncio.subprocess.Process:
        """Send an attack to the attacker's process; return when the attack has begun."""
        self.turn += 1
        order = {"attack": attack.name, "seconds": seconds, "seed": self.seed * 1_000 + self.turn}
        if self._attacker is None:
            self._attacker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "end_to_end.faults.abuse.attacks"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[3],
                env=environment(),
                limit=1 << 24,
            )
        process = self._attacker
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(order | {"target": asdict(self._target)}).encode() + b"\n")
        async with asyncio.timeout(STARTS_WITHIN_S):
            assert await process.stdout.readline() == b"begun\n", f"the attacker of {attack.name} did not begin"
        return process

    async def _end_attacker(self) -> None:
        process, self._attacker = self._attacker, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _look_at_processes(self, wrong: Counter[str]) -> None:
        """Count ended processes, tracebacks, overlong log lines and pushes before Retry-After as wrong."""
        processes: list[Node | Push] = [*self.nodes, self.push]
        for process in processes:
            name = type(process).__name__.lower()
            if process.process is None or process.process.poll() is not None:
                wrong[f"the {name} process has ended"] += 1
            output = process.output()
            if SURPRISE.search(output):
                wrong[f"the {name} process has written of an error that it does not foresee"] += 1
            if max(map(len, output.splitlines()), default=0) > MAX_LINE:
                wrong[f"the {name} process has written a line of more than {MAX_LINE} characters"] += 1
        for name, came in self.services.came.items():
            gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
            if name.startswith("evil-503-") and min(gaps, default=RETRY_AFTER_S) < RETRY_AFTER_S - 0.5:
                wrong["Retry-After of a push service was not obeyed"] += 1
        if any(node.api_status() != 200 for node in self.nodes):
            wrong["a node is not ready"] += 1

    # -- stopping the node

    def drain(self, attack: Attack) -> tuple[Verdict, float]:
        """Stop a node while an attacker keeps requests open; return the verdict, and the seconds that the stop took."""
        return self._runner.run(self._drain(attack))

    async def _drain(self, attack: Attack) -> tuple[Verdict, float]:
        verdict, node = Verdict(attack.name, attack.rule), self.nodes[0]
        await self._launch(attack, DRAIN_S + 5)
        await asyncio.sleep(1)  # until the attacker's requests are under way
        started = time.monotonic()
        status = await asyncio.to_thread(node.terminate)
        took = time.monotonic() - started
        verdict.wrong[f"the node's exit status is {status}"] += int(status != 0)
        verdict.wrong["the node has written a traceback"] += int(SURPRISE.search(node.output()) is not None)
        verdict.wrong = +verdict.wrong
        await self._end_attacker()
        return verdict, took

    async def _leave(self) -> None:
        await self._end_attacker()
        await self.parties.leave()

    def close(self) -> None:
        """Stop all processes and disconnect the good parties."""
        try:
            self._runner.run(self._leave())
        finally:
            self._runner.close()
            self._stack.close()


def environment() -> dict[str, str]:
    """Return the environment of the attacker's process, which finds the same modules as this process."""
    root = Path(__file__).parents[4]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}


def progress(line: str) -> None:
    """Print a line about the progress of the campaign, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
