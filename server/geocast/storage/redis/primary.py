"""Connections to Redis servers, with a time limit on every command.

This is the only module that imports redis. It turns all errors of that library into LogUnavailable. Error messages
never repeat a command, and never any part of the URL except the hosts.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ...model.errors import LogUnavailable
from ...model.server_address import Address
from .target import EXPOSED, Target

ANSWER_S = 2.0  # the time in which Redis has to answer
CONNECT_S = 1.0
CONFIRM_S = 0.1  # how long Sentinels may take to confirm the primary; if one is down, each batch waits as long
OTHERS_S = 0.4  # how long to wait for the other Sentinels when a majority has named the primary
CONNECTIONS = 16  # the largest number of connections of a process, without those of its followers

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.OutOfMemoryError, "Redis is full (maxmemory)"),
    (exceptions.ReadOnlyError, "Redis is a replica, which can't be written"),
    (exceptions.BusyLoadingError, "Redis is reading its disk"),
    (exceptions.TimeoutError, "Redis does not answer"),
    (TimeoutError, "Redis does not answer"),
    (exceptions.ConnectionError, "Redis can't be reached"),
    (OSError, "Redis can't be reached"),
    (RuntimeError, "Redis can't be reached"),  # raised by uvloop for a connection that was reset
)
_WORDS = {  # error messages, by the first word of Redis' error
    "NOREPLICAS": "Redis has fewer replicas than its min-replicas-to-write",
    "MISCONF": "Redis can't write to its disk",
    "MASTERDOWN": "Redis is a replica that has lost its primary",
    "BUSY": "Redis is busy with somebody's script",
}
_FORBIDDEN = "it refuses the user, the password, or what this user wants to do"
_REFUSALS = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)


class Unfit(LogUnavailable):
    """Raised if a Redis server's configuration makes it unfit for a log, or if it refuses the credentials."""


class Reader:
    """A connection that runs one command at a time, including blocking commands such as XREAD BLOCK."""

    def __init__(self, target: Target, address: Address) -> None:
        """Prepare a connection to the server at `address`, with the user, password and TLS of `target`."""
        self._client = _connect(target, address, single_connection_client=True)

    async def ask(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        """Send one command to Redis, and return the answer.

        Raise LogUnavailable if Redis fails or does not answer within `within_s` seconds.
        """
        with _unavailable():
            async with asyncio.timeout(within_s):
                return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close the connection to Redis."""
        await self._client.aclose()


class Primary:
    """The primary Redis server: its address and the connections to it.

    Without Sentinels the address is fixed. With Sentinels, the address comes from the Sentinel with the newest
    configuration.

    Writes that must be durable are *confirmed*: after a write was synced, the Sentinels are asked again. No Sentinel
    may be in a failover, and the newest configuration must still name this server. A Sentinel announces a failover
    before it promotes a replica.
    Example: the primary P is paused for a while, so the Sentinels promote Q. P wakes up and accepts an entry, and its
    replica R, which does not know about Q yet, syncs the entry. The entry is on two disks, but will be lost when P and
    R become replicas of Q. Because the Sentinels name Q after the sync, the append raises LogUnavailable and is
    repeated at Q.
    """

    def __init__(self, target: Target) -> None:
        self.name = str(target)  # the server's name for log messages, without secrets
        self._target = target
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._where: Address  # the address to which `_client` connects; set together with it
        self._client: Redis | None = None
        self._borrowers: Counter[Redis] = Counter()
        self._sentinels: list[Redis] = []
        if target.service:
            secret = {"username": target.sentinel_username, "password": target.sentinel_password}
            self._sentinels = [_connect(target, host, db=0, **secret) for host in target.hosts]

    async def call(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        """Send one command to the primary Redis server, and return its answer.

        Raise LogUnavailable if Redis fails or does not answer within `within_s` seconds.
        """
        [answer] = await self.pipe([command], within_s=within_s)
        return answer

    async def pipe(
        self, commands: Sequence[tuple[Any, ...]], *, within_s: float = ANSWER_S, confirmed: bool = False
    ) -> list[Any]:
        """Send commands together on one connection, and return a list with their answers.

        `within_s` is the time limit once the primary is known; finding it may take ANSWER_S seconds. If `confirmed` is
        true, ask the Sentinels afterwards whether this server is still the primary (see the class). Raise
        LogUnavailable if a command fails, Redis does not answer in time, or the Sentinels disagree.
        """
        used = None
        try:
            with _unavailable():
                async with asyncio.timeout(ANSWER_S) as limit, self._slots, self._borrowed() as (client, where):
                    used = client
                    # The look-up of the primary has a time limit of its own. Example: the primary's region has died,
                    # and the new primary is 150 ms away. The look-up takes 0.6 s, and a new connection 0.4 s.
                    limit.reschedule(asyncio.get_running_loop().time() + within_s)
                    async with client.pipeline(transaction=False) as pipe:
                        for command in commands:
                            pipe.execute_command(*command)
                        answers: list[Any] = await pipe.execute(raise_on_error=False)
                    for answer in answers:
                        if isinstance(answer, Exception):
                            raise answer
                    if confirmed and self._sentinels:
                        await self._confirm(where)
        except LogUnavailable:
            if used is not None and used is self._client:  # not if only the wait for a connection took too long
                await self.leave()
            raise
        return answers

    async def reader(self) -> Reader:
        """Return a new connection to the primary Redis server.

        The caller has to close the connection. Raise LogUnavailable if Redis can't be reached.
        """
        with _unavailable():
            async with asyncio.timeout(ANSWER_S):
                return Reader(self._target, await self._locate())

    async def replicas(self) -> set[Address]:
        """Return the addresses of the replicas that the Sentinels know; an empty set without Sentinels.

        A replica that is open to other machines, without a password and without TLS, is left out.
        """

        async def ask(sentinel: Redis) -> set[Address]:
            async with asyncio.timeout(CONNECT_S):
                found: Any = await sentinel.sentinel_slaves(self._target.service)
            return {Address(str(state["ip"]), int(state["port"])) for state in found}

        answers = await asyncio.gather(*map(ask, self._sentinels), return_exceptions=True)
        known = set[Address]().union(*(answer for answer in answers if isinstance(answer, set)))
        return {address for address in known if not self._target.exposes(address)}

    async def look(self) -> None:
        """Ask the Sentinels for the primary, and drop the current connections if it is another server now.

        If no Sentinel answers, keep the connections.
        """
        if self._sentinels and self._client is not None:
            with contextlib.suppress(LogUnavailable):
                if await self._locate() != self._where:
                    await self.leave()

    async def leave(self) -> None:
        """Drop the current connections, usually after a failure.

        The next command asks again for the primary's address.
        """
        client, self._client = self._client, None
        if client is not None and not self._borrowers[client]:
            await client.aclose()

    async def close(self) -> None:
        """Close all connections, except those that `reader` has returned."""
        await self.leave()
        for sentinel in self._sentinels:
            await sentinel.aclose()

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[tuple[Redis, Address]]:
        """Provide the current client and the address of its server to the body of a `with` statement.

        Connect first if there is no client. If the client is dropped meanwhile (`leave`), other bodies may still be
        using it. So the last body that uses it closes it.
        """
        if self._client is None:
            where = await self._locate()
            if self._client is None:
                self._where, self._client = where, _connect(self._target, where)
        client, where = self._client, self._where
        self._borrowers[client] += 1
        try:
            yield client, where
        finally:
            self._borrowers[client] -= 1
            if not self._borrowers[client]:
                del self._borrowers[client]
                if client is not self._client:
                    await client.aclose()

    async def _locate(self) -> Address:
        """Return the address of the primary Redis server. Raise LogUnavailable if no Sentinel answers."""
        if not self._sentinels:
            return self._target.hosts[0]
        known = [state[:2] for state in await self._ask_sentinels(CONNECT_S, len(self._sentinels) // 2 + 1)]
        if not known:
            raise LogUnavailable("no Sentinel knows the primary")
        _, where = max(known, key=lambda each: (each[0], known.count(each)))
        if self._target.exposes(where):
            raise Unfit(EXPOSED)
        return where

    async def _confirm(self, where: Address) -> None:
        """Raise LogUnavailable if a Sentinel is in a failover, or if the newest configuration names another primary.

        Sentinels that do not answer are ignored. Example: a network split separates this process, the primary and one
        Sentinel from two Sentinels and the replicas. The majority on the other side starts a failover, which this side
        does not notice. But then the primary has no replica on this side, so a write that needs a replica is not
        synced.
        """
        states = await self._ask_sentinels(CONFIRM_S)
        if any(failing for _, _, failing in states) or (states and max(states, key=lambda each: each[0])[1] != where):
            raise LogUnavailable("Redis is in a failover")

    async def _ask_sentinels(self, within_s: float, enough: int | None = None) -> list[tuple[int, Address, bool]]:
        """Return a tuple of three values for each Sentinel that answers within `within_s` seconds.

        The values are the number of the Sentinel's configuration (its epoch), the address of the primary that this
        configuration names, and whether a failover is in progress. When `enough` Sentinels have answered, wait only
        OTHERS_S longer for the others.
        Example: a machine with the primary and a Sentinel loses its power. This Sentinel never answers, not even that
        nobody listens there. Waiting for it would use up the time in which the new primary has to answer.
        """

        async def ask(sentinel: Redis) -> tuple[int, Address, bool]:
            async with asyncio.timeout(within_s):
                state: Any = await sentinel.sentinel_master(self._target.service)
            where = Address(str(state["ip"]), int(state["port"]))
            return int(state["config-epoch"]), where, "failover_in_progress" in state["flags"]

        asked = [asyncio.ensure_future(ask(sentinel)) for sentinel in self._sentinels]
        answered = 0
        try:
            for answer in asyncio.as_completed(asked):
                with contextlib.suppress(Exception):  # counted only if it has answered
                    await answer
                    answered += 1
                if answered == enough:
                    await asyncio.wait(asked, timeout=OTHERS_S)
                    break
        finally:
            for each in asked:
                each.cancel()
            results = await asyncio.gather(*asked, return_exceptions=True)
        return [result for result in results if isinstance(result, tuple)]


def _connect(target: Target, address: Address, **options: Any) -> Redis:
    """Return a client of the server at `address`, with the user, password and TLS of `target`."""
    of_target = {"db": target.db, "username": target.username, "password": target.password}
    secure = {"ssl": True, "ssl_ca_certs": target.ca} if target.tls else {}
    return Redis(
        host=address.host,
        port=address.port,
        protocol=2,
        socket_timeout=None,  # every call here has a time limit, and the callers repeat what failed
        socket_connect_timeout=CONNECT_S,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # otherwise a new connection waits a round trip more, which delays the return after a cut
        **{**of_target, **secure, **options},
    )


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Turn errors that the redis library raises in the `with` block into LogUnavailable or Unfit."""
    try:
        yield
    except _REFUSALS:
        raise Unfit(_FORBIDDEN) from None
    except (exceptions.RedisError, OSError, TimeoutError, RuntimeError) as error:
        if "ACL failure in script" in str(error):
            raise Unfit(_FORBIDDEN) from None
        # Use only the first word of Redis' error message, because the rest may repeat data that was sent to Redis.
        word = str(error).partition(" ")[0]
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), None)
        raise LogUnavailable(
            reason or _WORDS.get(word) or f"Redis answers with the error {type(error).__name__}"
        ) from None
