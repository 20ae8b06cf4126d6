# ruff: noqa: E501 (lines of the server)
"""Faults that somebody could make: each changes a line of the server, in memory, and has to be found by a ring.

`make planted` runs each until a schedule fails, and says after how many. A fault that is not found shows what the
simulator can't see.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """A change of one place in a module of geocast."""

    ring: int
    module: str
    old: str
    new: str


_FANOUT, _LIVE, _READER = "stream.fanout", "stream.live_alerts", "stream.log_reader"
_HUB, _SERVER, _CONNECTION, _SESSION = "stream.hub", "stream.server", "stream.connection", "stream.session"
_FLIGHTS, _FLAGS, _MEMORY = "stream.flights", "stream.delivery_flags", "alertlog.memory"

_APPEND, _REDIS, _HISTORY = (
    "alertlog.redis_streams.lua.append",
    "alertlog.redis_streams.log",
    "alertlog.redis_streams.history",
)
_FOLLOWER, _REPAIR = "alertlog.redis_streams.follower", "alertlog.redis_streams.repair"
_APPENDER, _HEARTBEAT = "alertlog.redis_streams.appender", "alertlog.redis_streams.heartbeat"

FAULTS = {
    # ---- faults that geocast had ---------------------------------------------------------------------------------
    "entries that ended are left out although they shorten an alert": Fault(
        1, _MEMORY, "if each.revision <= entry.revision)", "if each.revision == entry.revision)"
    ),
    "a deadline from a clock that was ahead is kept": Fault(
        1, _LIVE, "if _gap_s(now) - self._least_gap_s >= STEP_S and", "if False and"
    ),
    "a newer revision of a known alert in holding is not remembered": Fault(
        1, _FANOUT, "if alert is None or held > alert.number:", "if alert is None:"
    ),
    "a revision that had ended by both clocks is not sent after the correction": Fault(
        1, _LIVE, "if self.deadline <= now.monotonic:\n            self._shared.suspended", "if False:\n            self._shared.suspended"
    ),
    # ---- the reader of the log -----------------------------------------------------------------------------------
    "reading goes on one entry too late": Fault(
        1, _READER, "self._log.follow(self.position, self._left_out_until)",
        "self._log.follow(self.position + (self.position > 3), self._left_out_until)",
    ),
    "the position moves before the entry is applied, by one batch": Fault(
        1, _READER, "histories = await self._histories([entry for _, entry in batch])",
        "self.position = batch[-1].position\n        histories = await self._histories([entry for _, entry in batch])",
    ),
    "the loop runs between a revision and its cancel": Fault(
        1, _READER, "if turn.is_over() and (following is None or following.id != entry.id):", "if True:"
    ),
    "the log is not read again when the clock is set right": Fault(1, _READER, "if now.wall_ms >= until:", "if True:"),
    "the log is not read again when reviewers change": Fault(
        1, _READER, "await self._apply_chains(await self._with_histories(await self._chains(now_ms)))\n", "pass\n"
    ),
    "what is left out when reviewers change is not read when the clock is set right": Fault(
        1, _READER, "self._live.missed_until = max(self._live.missed_until, now_ms)", "pass"
    ),
    "live alerts are not verified when reviewers change": Fault(
        1, _READER, "            self._live.verify_again(alert)\n", "            pass\n"
    ),
    "a failed read is not tried again for a minute": Fault(
        1, _READER, "await asyncio.sleep(RETRY_S)", "await asyncio.sleep(60)"
    ),
    "an entry with a gap before it is applied without its history": Fault(
        1, _READER, "if not given and entry.id not in found and self._live.lacks_chain(entry):", "if False:"
    ),
    # ---- live alerts -----------------------------------------------------------------------------------------------
    "an alert is sent in the millisecond in which it ends": Fault(
        1, _LIVE, "if now.wall_ms < self.expires_at:\n            return False", "if now.wall_ms <= self.expires_at:\n            return False"
    ),
    "a revision after the cancel is applied": Fault(
        1, _LIVE, "if alert is not None and (alert.cancel is not None or not self._is_newer(entry, alert)):",
        "if alert is not None and not self._is_newer(entry, alert):",
    ),
    "an old revision that is read again counts as new": Fault(
        1, _LIVE, "return alert.unbelieved or is_again or revision.revision > alert.number",
        "return alert.unbelieved or is_again or revision.revision >= alert.number",
    ),
    "an alert that was let go comes back": Fault(
        1, _LIVE, "if revision.revision <= self._gone.last(revision.id):\n                return None", "if False:\n                return None"
    ),
    "a suspended alert is not sent when the clock is right": Fault(
        1, _LIVE, "            resume(alert)\n", "            pass\n"
    ),
    "an alert with a doubted end is kept by the wrong clock": Fault(
        1, _LIVE, "self.deadline = min(self.deadline, now.deadline(self.expires_at))", "pass"
    ),
    "an alert read with a clock that is ahead is dropped": Fault(
        1, _LIVE, "if len(self._shared.doubted) < MAX_DOUBTED:", "if False:"
    ),
    "a shorter revision does not move the deadline": Fault(
        1, _LIVE, "self.deadline += (revision.ends_at - self.expires_at) / 1000", "self.deadline += max(0, revision.ends_at - self.expires_at) / 1000"
    ),
    "a shorter deadline is not put in the heap": Fault(1, _LIVE, "if alert.deadline < before:", "if False:"),
    "an early cancel is dropped": Fault(1, _LIVE, "self._early_cancels[cancel.id] = cancel", "pass"),
    "an unbelieved alert is forgotten": Fault(1, _LIVE, "if alert is None and len(unbelieved) < MAX_UNBELIEVED and", "if False and"),
    "the area of a cancelled alert stays in the index": Fault(
        1, _LIVE, "        self._remove_area(alert)\n        alert.end_by(cancel if", "        alert.end_by(cancel if"
    ),
    "the old area of a revised alert stays in the index": Fault(
        1, _LIVE, "            self._remove_area(alert)\n            before = alert.deadline", "            before = alert.deadline"
    ),
    # ---- the fan-out -----------------------------------------------------------------------------------------------
    "a flight of an old revision goes on": Fault(
        1, _FLIGHTS, "return self.number == self.alert.number and not self.alert.ended(now)", "return not self.alert.ended(now)"
    ),
    "a flight goes on after the alert has ended": Fault(
        1, _FLIGHTS, "return self.number == self.alert.number and not self.alert.ended(now)", "return self.number == self.alert.number"
    ),
    "the bits of a stopped flight stay": Fault(
        1, _FLIGHTS, "words: NDArray[np.uint64] = self.owed[rows] & self._alive", "words: NDArray[np.uint64] = self.owed[rows]"
    ),
    "a row that takes its alerts keeps its bits": Fault(1, _FANOUT, "        flights.owed[row] = 0\n        self._skipped", "        self._skipped"),
    "a paused row's alert is not recorded": Fault(
        1, _FANOUT, "                self._miss(row, flight.alert)\n\n    # ---- finding", "                pass\n\n    # ---- finding"
    ),
    "a paused row is sent alerts": Fault(1, _FANOUT, "go = (words != 0) & ~paused", "go = words != 0"),
    "recipients outside of the new area are forgotten": Fault(
        1, _FANOUT, "return np.concatenate([rows, np.setdiff1d(recipients, rows, assume_unique=True)])", "return rows"
    ),
    "a row is free before its flags are": Fault(
        1, _FANOUT, "            self.live.forget(np.array(self._given_back, np.int32))\n", ""
    ),
    "a session that has left stays in the index of places": Fault(
        1, _FANOUT, "            self._index.remove(slots[-1])\n", ""
    ),
    "a filter excludes recipients of an earlier revision": Fault(
        1, _FANOUT, "return bool(flags & RECIPIENT) or wanted.passes(alert.category, alert.rank)", "return wanted.passes(alert.category, alert.rank)"
    ),
    "a test is sent to everybody who moves": Fault(
        1, _FANOUT, "if not alert.ended(now) and self.may_see(row, alert) and _is_owed", "if not alert.ended(now) and _is_owed"
    ),
    "holding of an unknown alert is dropped": Fault(
        1, _FANOUT, "            self.live.holdings.remember(row, int(self._epoch[row]), unread, now)", "            pass"
    ),
    "holding of another session in the same row counts": Fault(
        1, _FANOUT, "if epoch == self._epoch[row] and self.may_see(row, alert):", "if self.may_see(row, alert):"
    ),
    # ---- hub, session, connection ----------------------------------------------------------------------------------
    "a move is answered before it is made": Fault(
        1, _SESSION,
        "                self._hub.move(self.row, [p.place() for p in message.places], _here(message.places))\n                self._hub.reply_with_owed(self.row, message.answer(\"ok\"), now)",
        "                self._hub.reply_with_owed(self.row, message.answer(\"ok\"), now)\n                self._hub.move(self.row, [p.place() for p in message.places], _here(message.places))",
    ),
    "a drained session is not sent what it lacks": Fault(
        1, _HUB, "self._send_owed(row, b\"\".join(calls), self.fanout.take_owed_by(row, now), now)", "pass"
    ),
    "a frame that the kernel took in part is written again": Fault(1, _HUB, "writes[row](frame[count:])", "writes[row](frame)"),
    "a frame that the kernel refused is not written": Fault(
        1, _HUB, "left, writes = np.flatnonzero(sent != len(frame)), self._writes", "left, writes = np.flatnonzero((sent != len(frame)) & (sent >= 0)), self._writes"
    ),
    "a session that has ended keeps its descriptor": Fault(
        1, _HUB, "        self.silence(row)\n        self._forget(row)", "        self._forget(row)"
    ),
    "what was sent with an answer is not recorded": Fault(
        1, _HUB, "        self.fanout.note_taken(row, owed)", "        pass"
    ),
    "a slow session is not paused": Fault(1, _HUB, "        self.fanout.pause(row)\n", ""),
    "a session stays in the hub after its connection": Fault(
        1, _CONNECTION, "                self._stream.hub.leave(row)\n", "                pass\n"
    ),
    "what came while a session was slow is not read": Fault(
        1, _CONNECTION, "            if self._session is not None:\n                self._read(self._unread)\n\n    def connection_lost", "\n    def connection_lost"
    ),
    # ---- the pump --------------------------------------------------------------------------------------------------
    "a new entry does not wake the pump": Fault(
        1, _SERVER, "        self._hub.fanout.deliver(entry, self._clock.now())\n        self._pump.wake()", "        self._hub.fanout.deliver(entry, self._clock.now())"
    ),
    "the pump stops after one slice": Fault(
        1, _SERVER, "        else:\n            asyncio.get_running_loop().call_soon(self._run)", "        else:\n            self._running = False"
    ),
    "counts that could not be stored are lost": Fault(
        1, _SERVER, "                self._hub.fanout.live.put_back_counts(counts)", "                pass"
    ),
    "counts are stored again after they were stored": Fault(
        1, _SERVER, "            if not is_stored:", "            if True:"
    ),
    # ---- ring 2: the log in Redis --------------------------------------------------------------------------------
    "entries with a number that is taken are stored again": Fault(
        2, _APPEND, "answer = append_of(there.t) == append_of(token) and 'ours' or there.p == payload and 'same' or 'other'", "answer = 'stored'"
    ),
    "a repeated append does not know its own entry": Fault(
        2, _APPEND, "append_of(there.t) == append_of(token) and 'ours' or", ""
    ),
    "entries may follow a cancel": Fault(2, _APPEND, "local ended = last_kind == 'cancel' or last_kind == 'end'", "local ended = false"),
    "an append may leave a gap": Fault(2, _APPEND, "(number == last + 1 and not ended)", "(number > last and not ended)"),
    "entries that are put back leave the last number as it was": Fault(2, _APPEND, "last = math.max(last, number)", "last = mending and last or number"),
    "a log that lost entries while it kept its epoch is not noticed": Fault(
        2, _HISTORY, "return mark[0] if (epoch, seq) < mark else None", "return None"
    ),
    "a lower number in the same epoch is not noticed": Fault(
        2, _HISTORY, "return mark[0] if (epoch, seq) < mark else None", "return mark[0] if epoch < mark[0] else None"
    ),
    "a gap in the numbers is not noticed": Fault(
        2, _HISTORY, "if epoch != self.epoch or seq != self.seq + (not is_beat):", "if epoch != self.epoch:"
    ),
    "another epoch is not noticed": Fault(
        2, _HISTORY, "if epoch != self.epoch or seq != self.seq + (not is_beat):", "if seq != self.seq + (not is_beat):"
    ),
    "a follower reads on in an older epoch": Fault(2, _HISTORY, "return self.epoch < history.epoch", "return False"),
    "a follower reads on from a server that is not written to": Fault(
        2, _HISTORY, "elsewhere = history.server not in (self.server, self.others)", "elsewhere = False"
    ),
    "a follower that hears no heartbeats is content": Fault(
        2, _HISTORY, "return elsewhere or self.place < max(self.top, history.top_before)", "return elsewhere"
    ),
    "a follower never thinks that it is deaf": Fault(
        2, _HISTORY, "return elsewhere or self.place < max(self.top, history.top_before)", "return False"
    ),
    "a follower goes on at another server without a look at its last entry": Fault(
        2, _FOLLOWER, "(reading.server == before.server or await self._has(before))", "True"
    ),
    "a follower takes any entry under the id of its last one": Fault(
        2, _FOLLOWER, "return bool(found) and identity(found[0][1]) == before.last_identity", "return bool(found)"
    ),
    "a follower goes on in a log with fewer entries": Fault(
        2, _HISTORY, "return epoch == self.epoch and seq >= self.seq", "return epoch == self.epoch"
    ),
    "a follower that was cut off goes on where the reader stopped to listen, not where it stopped to read": Fault(
        2, _FOLLOWER, "self._left = left = before = dataclasses.replace(follower.reading)", "self._left = left = before = follower.reading"
    ),
    "nothing is put back when only the server has changed": Fault(
        2, _HISTORY, "return before is not None and before != self._whole", "return before is not None and before[1] != epoch"
    ),
    "nothing is put back": Fault(2, _REDIS, "        if may_lack_something:\n", "        if False:\n"),
    "what was read is not kept in memory": Fault(2, _FOLLOWER, "            self._source.known.keep(stored)\n", "            pass\n"),
    "what was appended is not kept in memory": Fault(2, _APPENDER, "                    self._keep(waiting.stored)\n", "                    pass\n"),
    "a repair that fails is not tried again": Fault(
        2, _REPAIR, "            except LogUnavailable:\n                await asyncio.sleep(RETRY_S)", "            except LogUnavailable:\n                return None"
    ),
    "cancels are put back last": Fault(2, _REPAIR, "for cancelled in (True, False):", "for cancelled in (False, True):"),
    "a lost cancel whose number is taken is dropped": Fault(
        2, _REPAIR, 'if is_lost and stored.kind in ("cancel", *MOVED):', "if is_lost and stored.kind in MOVED:"
    ),
    "an append is answered before it is synced": Fault(
        2, "storage.redis.durable", "    if local < 1 or on_replicas < replicas:\n", "    if False:\n"
    ),
    "an append is answered before the replica has it": Fault(
        2, "storage.redis.durable", "    if local < 1 or on_replicas < replicas:\n", "    if local < 1:\n"
    ),
    "an append without an answer is given up as refused": Fault(
        2, _APPENDER, "                if self._problem() is not None or time.monotonic() + AGAIN_S >= deadline:\n                    raise\n",
        "                return [False] * len(batch)\n",
    ),
    "an append that is repeated at another server looks like the one that was read": Fault(
        2, _APPENDER, 'f"{waiting.token}-{attempt}"', "waiting.token"
    ),
    "the heartbeat ends with its first failure": Fault(
        2, _HEARTBEAT, "                self.problem = str(error)\n                await self._primary.leave()", "                self.problem = str(error)\n                return\n                await self._primary.leave()"
    ),
    "connections to a server that has failed are kept": Fault(
        2, "storage.redis.primary", "                await self.leave()\n            raise\n", "                pass\n            raise\n"
    ),
}  # fmt: skip


def place_of(fault):
    """Return the file that a fault changes."""
    path = Path(find_spec("geocast").submodule_search_locations[0]).joinpath(*fault.module.split("."))
    return path.with_suffix(".lua" if path.parent.name == "lua" else ".py")


_planted = set()


def plant(name):
    """Change what is read of the server in this process, once. No module of geocast may have been imported."""
    if name in _planted:
        return
    _planted.add(name)
    assert not [each for each in sys.modules if each.startswith("geocast.")], "too late"
    fault = FAULTS[name]
    path, read_text, get_data = place_of(fault), Path.read_text, SourceFileLoader.get_data

    def changed(text):
        if text.count(fault.old) != 1:
            raise LookupError(f"{path}: the place of a planted fault is there {text.count(fault.old)} times")
        return text.replace(fault.old, fault.new)

    def read(self, *arguments):
        return (changed if self == path else str)(read_text(self, *arguments))

    def code(self, name):
        source = get_data(self, self.path).decode()
        return compile(changed(source), self.path, "exec", dont_inherit=True)

    if path.suffix == ".lua":
        Path.read_text = read
    else:
        sys.meta_path.insert(0, _Finder(f"geocast.{fault.module}", code))


class _Finder(MetaPathFinder):
    def __init__(self, module, code):
        self._module, self._code = module, code

    def find_spec(self, name, path, _target=None):
        if name != self._module:
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = type("_Loader", (SourceFileLoader,), {"get_code": self._code})(name, spec.origin)
        return spec
