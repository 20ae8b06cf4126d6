"""Connections to the Redis that can be written, with a deadline on everything. The only file that imports redis.

What redis raises leaves here as LogUnavailable. No message repeats what was sent, or anything of the URL but hosts.
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

from ...config import Address
from ...errors import LogUnavailable
from .target import EXPOSED, Target

ANSWER_S = 2.0  # for Redis to answer
CONNECT_S = 1.0
CONFIRM_S = 0.1  # for Sentinels to say that the primary still is one; a silent one takes that long for each batch
CONNECTIONS = 16  # of a process, besides its followers'

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.OutOfMemoryError, "Redis is full (maxmemory)"),
    (exceptions.ReadOnlyError, "Redis is a replica, which can't be written"),
    (exceptions.BusyLoadingError, "Redis is reading its disk"),
    (exceptions.TimeoutError, "Redis does not answer"),
    (TimeoutError, "Redis does not answer"),
    (exceptions.ConnectionError, "Redis can't be reached"),
    (OSError, "Redis can't be reached"),
    (RuntimeError, "Redis can't be reached"),  # uvloop says so of a transport that was reset
)
_WORDS = {  # the first of an error's text
    "NOREPLICAS": "Redis has fewer replicas than its min-replicas-to-write",
    "MISCONF": "Redis can't write to its disk",
    "MASTERDOWN": "Redis is a replica, which can't be written",
    "BUSY": "Redis is busy with somebody's script",
}
_FORBIDDEN = "it refuses the user, the password, or what this user wants to do"
_REFUSALS = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)


class Unfit(LogUnavailable):
    """This Redis can't keep a log, or not with these credentials."""


class Reader:
    """One connection on which one command at a time may wait."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def ask(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        """What Redis answers. Raises LogUnavailable."""
        with _unavailable():
            async with asyncio.timeout(within_s):
                return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close the connection to Redis."""
        await self._client.aclose()


class Primary:
    """Where the Redis that can be written is, and connections to it.

    With Sentinels, they are asked; of what they say the newest counts.

    An old primary that was paused, or that only the Sentinels can't reach, goes on accepting for a moment, and a
    replica that has not heard of the new one yet goes on syncing. What both of them have is lost all the same when they
    are made replicas of the new one. So whatever has to last is confirmed: *after* it was synced, no Sentinel knows
    another primary, and none is in a failover. One that promotes a replica says so before it does.
    """

    def __init__(self, target: Target) -> None:
        self.name = str(target)  # what may be said of it in the log
        self._target = target
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._where: Address  # of the client, once there is one
        self._client: Redis | None = None
        self._borrowers: Counter[Redis] = Counter()
        self._sentinels: list[Redis] = []
        if target.service:
            secret = {"username": target.sentinel_username, "password": target.sentinel_password}
            self._sentinels = [self._connect(host, db=0, **secret) for host in target.hosts]

    async def call(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        """What Redis answers to a command. Raises LogUnavailable."""
        [answer] = await self.pipe([command], within_s=within_s)
        return answer

    async def pipe(
        self, commands: Sequence[tuple[Any, ...]], *, within_s: float = ANSWER_S, confirmed: bool = False
    ) -> list[Any]:
        """What Redis answers to commands sent in one go on one connection; `confirmed`: see the class.

        Raises LogUnavailable.
        """
        try:
            with _unavailable():
                async with asyncio.timeout(within_s), self._slots, self._borrowed() as (client, where):
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
            await self.leave()
            raise
        return answers

    async def reader(self) -> Reader:
        """A connection of its own, which the caller closes. Raises LogUnavailable."""
        with _unavailable():
            async with asyncio.timeout(ANSWER_S):
                return Reader(self._connect(await self._locate(), single_connection_client=True))

    async def look(self) -> None:
        """Go elsewhere if the Sentinels name another primary by now; those that say nothing say nothing new."""
        if self._sentinels and self._client is not None:
            with contextlib.suppress(LogUnavailable):
                if await self._locate() != self._where:
                    await self.leave()

    async def leave(self) -> None:
        """It failed: the next who wants a connection looks anew where the primary is."""
        client, self._client = self._client, None
        if client is not None and not self._borrowers[client]:
            await client.aclose()

    async def close(self) -> None:
        """Close all connections but those of readers."""
        await self.leave()
        for sentinel in self._sentinels:
            await sentinel.aclose()

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[tuple[Redis, Address]]:
        """The client, and where it is connected to.

        Whoever is the last to use one that was left closes it: it may be connecting while it is left.
        """
        if self._client is None:
            where = await self._locate()
            if self._client is None:
                self._where, self._client = where, self._connect(where)
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
        if not self._sentinels:
            return self._target.hosts[0]
        known = [told[:2] for told in await self._ask_sentinels(CONNECT_S)]
        if not known:
            raise LogUnavailable("no Sentinel knows the primary")
        _, where = max(known, key=lambda told: (told[0], known.count(told)))
        if self._target.exposes(where):
            raise Unfit(EXPOSED)
        return where

    async def _confirm(self, where: Address) -> None:
        """Raise LogUnavailable if a Sentinel knows another primary, or is in a failover.

        Those that say nothing say nothing new: a majority that nobody reaches may fail over, but then `where` has no
        replica on this side to sync, if one was asked for.
        """
        told = await self._ask_sentinels(CONFIRM_S)
        if any(failing for _, _, failing in told) or (told and max(told, key=lambda each: each[0])[1] != where):
            raise LogUnavailable("Redis fails over")

    async def _ask_sentinels(self, within_s: float) -> list[tuple[int, Address, bool]]:
        """Of each Sentinel that answers: the epoch of what it knows, the primary, and whether it is in a failover."""

        async def ask(sentinel: Redis) -> tuple[int, Address, bool]:
            async with asyncio.timeout(within_s):
                state: Any = await sentinel.sentinel_master(self._target.service)
            where = Address(str(state["ip"]), int(state["port"]))
            return int(state["config-epoch"]), where, "failover_in_progress" in state["flags"]

        answers = await asyncio.gather(*map(ask, self._sentinels), return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, tuple)]

    def _connect(self, address: Address, **options: Any) -> Redis:
        target = self._target
        of_target = {"db": target.db, "username": target.username, "password": target.password}
        secure = {"ssl": True, "ssl_ca_certs": target.ca} if target.tls else {}
        return Redis(
            host=address.host,
            port=address.port,
            protocol=2,
            socket_timeout=None,  # every call has a deadline of its own, and the log its own retries
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            **{**of_target, **secure, **options},
        )


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except _REFUSALS:
        raise Unfit(_FORBIDDEN) from None
    except (exceptions.RedisError, OSError, TimeoutError, RuntimeError) as error:
        if "ACL failure in script" in str(error):
            raise Unfit(_FORBIDDEN) from None
        # Only the first word of what Redis says: the rest may repeat what was sent.
        word = str(error).partition(" ")[0]
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), None)
        raise LogUnavailable(
            reason or _WORDS.get(word) or f"Redis answers with the error {type(error).__name__}"
        ) from None
