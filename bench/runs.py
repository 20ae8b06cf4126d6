"""The steps that all benchmarks share: measure, save, show and plot."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench import machine, processes, screen
from bench.results import Result, Table, parameters_of

mpl.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True, slots=True)
class Place:
    """The temporary folder of a run, and the CPU cores of the server and of the clients."""

    home: Path
    cores: machine.Cores


def plot_rounds(figure: Any, found: dict[str, Any], keys: Sequence[str], title: str) -> None:
    """Plot the time of each round: one line for each key, from the list `found[key]` in ms."""
    axes = figure.subplots()
    for key in keys:
        axes.plot(found[key], "o-", label=key.removesuffix("_ms"))
    axes.set(xlabel="round", ylabel="publish → received, ms", yscale="log")
    axes.legend()
    figure.suptitle(title)


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark: its name, its description, and the functions that measure, tabulate and plot."""

    name: str
    about: str
    measure: Callable[..., dict[str, Any]]  # takes a Place and the parameters
    table: Callable[[Result], Table]
    plot: Callable[[Result, Any], None]  # takes a Result and the figure on which to draw it
    short: dict[str, Any]  # the parameters for `all --short`
    own_server: bool = True  # whether the benchmark starts servers, which need a core of their own

    def run(self, folder: Path, **parameters: Any) -> Result:
        """Measure, then save, show and plot the result."""
        screen.say(f"[bold]{self.name}[/bold]: {self.about}")
        start = time.monotonic()
        processes.raise_descriptor_limit()
        cores = machine.cores()
        if self.own_server:
            os.sched_setaffinity(0, cores.clients)
        with processes.workplace() as home:
            found = self.measure(Place(home, cores), **parameters)
        os.sched_setaffinity(0, cores.server | cores.clients)
        result = Result(self.name, parameters_of(parameters), found)
        path = result.save(folder)
        self.show(result)
        self.draw(result, path.with_suffix(".png"))
        screen.say(f"{path} and its plot were written after {time.monotonic() - start:.0f} s\n")
        return result

    def show(self, result: Result) -> None:
        """Print the table of a result on the terminal."""
        table = self.table(result)
        screen.console.print(table.for_screen(screen.console.width))
        for note in table.notes:
            screen.say(f"- {note}")

    def draw(self, result: Result, path: Path) -> None:
        """Write the plot of a result as a PNG file."""
        figure = plt.figure(figsize=(9, 4.5), layout="constrained")
        self.plot(result, figure)
        figure.savefig(path, dpi=110)
        plt.close(figure)
