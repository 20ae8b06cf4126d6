"""The rings of the simulator by number, and how a failing run is made shorter."""

import contextlib
import logging

from simulator import delivery, redis_log
from simulator.loop import simulated_time

_RINGS = {1: delivery, 2: redis_log}


# What a node has to log in some runs.
_EXPECTED = "the alert log can't be", "log %s has lost entries", "log %s: a lost entry can't be put back"


class _Errors(logging.Handler):
    """The errors that the server logs and that no run may cause."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        if not record.msg.startswith(_EXPECTED):
            self.found.append(record.getMessage())


@contextlib.contextmanager
def _logging_only_errors():
    logger, errors = logging.getLogger("geocast"), _Errors()
    before = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(errors)
    try:
        yield errors
    finally:
        logger.removeHandler(errors)
        logger.level, logger.propagate = before


@contextlib.contextmanager
def simulating(ring):
    """Yield a function that runs the schedule of a seed, or only some of its steps, and returns its world."""
    module = _RINGS[ring]
    with simulated_time() as simulated, module.patched(), _logging_only_errors() as errors:

        def run(seed, steps=None):
            world = module.run(seed, module.script(seed) if steps is None else steps, simulated)
            for error in errors.found:
                world.fail(error)
            errors.found.clear()
            return world

        yield run


def shrink(ring, seed, run):
    """Leave out steps of a failing run as long as it fails. Return the steps that are left, and the world."""
    steps = list(_RINGS[ring].script(seed))
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if run(seed, fewer).faults:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps, run(seed, steps)
