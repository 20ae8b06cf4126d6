"""Runs many schedules, or many planted faults (see CONTRIBUTING.md).

python -m simulator --ring 1 --schedules 100000     new seeds, on all cores
python -m simulator --ring 1 --seed 42              one schedule, shrunk and told as a story if it fails
python -m simulator --planted                       each planted fault, until a schedule finds it; --ring 2 for one ring
"""

import argparse
import concurrent.futures
import itertools
import os
import random
import subprocess
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from simulator import planted

CHUNK = 200  # schedules that a process runs before it says how far it is
MOST = 100_000  # schedules within which a planted fault has to be found


def main(arguments=None):
    """Do what the command line says, and return the exit status."""
    options = _options(arguments)
    # The tasks of a node that was killed never end, and their coroutines complain when they are collected.
    sys.unraisablehook = lambda _: None
    if options.plant:
        planted.plant(options.plant)
    if options.planted:
        return _run_planted(options)
    if options.seed is not None:
        return _replay(options)
    return _run_many(options)


def _options(arguments):
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__.partition("\n")[0])
    parser.add_argument("--ring", type=int, choices=(1, 2), help="which one (default: 1, or all with --planted)")
    parser.add_argument("--schedules", type=int, help=f"how many (default: 10000, or {MOST} for each planted fault)")
    parser.add_argument("--seed", type=int, help="replay this schedule")
    parser.add_argument("--first", type=int, help="the first seed (default: a random one)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--planted", action="store_true", help="run each planted fault")
    parser.add_argument("--plant", choices=planted.FAULTS, metavar="NAME", help="run with this planted fault")
    parser.add_argument("--until", action="store_true", help="stop at the first schedule that fails")
    options = parser.parse_args(arguments)
    if not options.planted:
        options.ring = options.ring or 1
    return options


def run_chunk(ring, seeds, plant=None):
    """Run schedules, and return the seeds of those that failed with what was wrong, and the number of steps."""
    if plant is not None:
        planted.plant(plant)
    from simulator import rings  # only now, so that a planted fault is there

    failed, steps = [], 0
    with rings.simulating(ring) as run:
        for seed in seeds:
            world = run(seed)
            steps += world.loop.steps
            if world.faults:
                failed.append((seed, world.faults[0]))
    return failed, steps


def _run_many(options):
    count = options.schedules or 10_000
    first = random.randrange(1 << 40) if options.first is None else options.first
    seeds = iter(range(first, first + count))
    chunks = iter(lambda: list(itertools.islice(seeds, CHUNK)), [])
    console, began = Console(stderr=True), time.perf_counter()
    failed, steps, done = [], 0, 0
    columns = TextColumn("ring {task.fields[ring]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    rate = TextColumn("{task.fields[rate]:.0f} schedules/s, {task.fields[failed]} failed")
    with (
        concurrent.futures.ProcessPoolExecutor(options.processes) as pool,
        Progress(*columns, rate, console=console, disable=options.until) as progress,
    ):
        task = progress.add_task("", total=count, ring=options.ring, rate=0.0, failed=0)
        waiting = {pool.submit(run_chunk, options.ring, each, options.plant) for each in itertools.islice(chunks, 4)}
        while waiting:
            ready, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for each in ready:
                found, took = each.result()
                failed, steps, done = failed + found, steps + took, min(count, done + CHUNK)
            if options.until and failed:
                pool.shutdown(cancel_futures=True)
                break
            waiting |= {
                pool.submit(run_chunk, options.ring, chunk, options.plant)
                for chunk in itertools.islice(chunks, len(ready))
            }
            rate_now = done / (time.perf_counter() - began)
            progress.update(task, completed=done, rate=rate_now, failed=len(failed))
    took_s = time.perf_counter() - began
    if not options.until:
        print(
            f"ring {options.ring}: {done} schedules from seed {first}, {steps} steps in {took_s:.0f} s: "
            f"{len(failed)} failed"
        )
    for seed, fault in sorted(failed)[: 1 if options.until else 10]:
        print(
            f"make simulate RING={options.ring} SEED={seed}  # {fault}"
            + (f" (after {seed - first + 1})" * options.until)
        )
    return bool(failed)


def _replay(options):
    from simulator import rings

    with rings.simulating(options.ring) as run:
        world = run(options.seed)
        if not world.faults:
            print(f"ring {options.ring}, seed {options.seed}: nothing is wrong ({world.loop.steps} steps)")
            return 0
        steps, world = rings.shrink(options.ring, options.seed, run)
    print("\n".join(world.story))
    print(f"\n{len(steps)} steps are enough for: {world.faults[0]}")
    return 1


def _run_planted(options):
    """Run each fault in a process of its own, and show a table."""
    count = options.schedules or MOST
    table = Table("planted fault", "found after", "as")
    missed = []
    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        jobs = {
            name: pool.submit(_find, name, fault.ring, count)
            for name, fault in planted.FAULTS.items()
            if options.ring in (None, fault.ring)
        }
        for name, job in jobs.items():
            after, said = job.result()
            print(f"{name}: {after}", file=sys.stderr, flush=True)
            table.add_row(name, after, said)
            if not said:
                missed.append(name)
    Console(width=160).print(table)
    print(f"{len(jobs) - len(missed)} of {len(jobs)} found")
    return bool(missed)


def _find(name, ring, count):
    """Return after how many schedules a fault was found, and what was wrong then; "" if it was not found."""
    command = [sys.executable, "-m", "simulator", "--ring", str(ring), "--plant", name, "--until", "--first", "0"]
    command += ["--processes", "1", "--schedules", str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 1) or (ended.returncode == 1 and "make simulate" not in ended.stdout):
        raise RuntimeError(f"{name}: {ended.stderr[-2000:]}")
    if ended.returncode == 0:
        return f"not within {count}", ""
    said = ended.stdout.partition("# ")[2].strip()
    return said.rpartition("(after ")[2].rstrip(")"), said.rpartition(" (after")[0]


if __name__ == "__main__":
    sys.exit(main())
