"""A reader of seat claims in the log, with the key for calls, which finds claims that were lost and restored."""

from collections.abc import Callable, Iterable

from geocast.alertlog import AlertLog
from geocast.calls.decrypted_chain import opened
from geocast.calls.encryption import CallKeys
from geocast.model.call import Acceptance, CallEntry, Person


async def put_back(open_log: Callable[[], AlertLog], keys: CallKeys, call_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Return the claims, as (id of the call, `sub`), that were encrypted for another number than they have."""
    log = open_log()
    await log.start()
    try:
        histories = [await log.history(call_id) for call_id in call_ids]
    finally:
        await log.stop()
    moved = [each for history in histories for each in history if isinstance(each, CallEntry) and each.sealed_as]
    found = [each for entry in moved if (each := opened(keys, entry)) is not None]
    return {
        (e.id, secret.sub) for e, body, secret in found if isinstance(body, Acceptance) and isinstance(secret, Person)
    }
