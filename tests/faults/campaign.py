"""The long form of the fault tests: ``make faults``, or ``python -m tests.faults.campaign --only disk``.

Puts every class of fault to real runs many times, prints a table and writes it as JSON. Full and read-only
disks need the right to mount a file system in memory.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.engine.support import arguments
from tests.faults import trials
from tests.faults.trials import Trial, Workshop
from tests.faults.victim import ROOT, Victim

Fault = Callable[[Workshop], Iterator[Trial]]

NOISE = 4000
"""Bytes a step: two runs of the same, read as here, came to -1,000 and 1,500."""

CALLS = {"write": 24, "rename": 80, "bank file": 12, "bank": 36, "k-means": 100, "log": 48}
"""How often a whole run passes each point, or a little less."""


def each(trial: Callable[..., Trial], times: int, *arguments: object) -> Fault:
    """One trial after another."""
    return lambda shop: (trial(shop, *arguments) for _ in repeat(None, times))


def faults(kills: int) -> dict[str, Fault]:
    """Every class of fault by name; ``kills`` is the number of random ones, the others keep pace."""
    share = kills / 200
    several = lambda number: max(round(number * share), 1)  # noqa: E731
    table: dict[str, Fault] = {
        f"{number.name} at a random time": lambda shop, number=number, times=times: trials.random_signal(
            shop, number, times
        )
        for number, times in (
            (signal.SIGKILL, several(120)),
            (signal.SIGTERM, several(40)),
            (signal.SIGINT, several(40)),
        )
    }
    table["SIGINT twice"] = each(trials.interrupted_twice, several(15))
    for point, calls in CALLS.items():
        for number, times in ((signal.SIGKILL, several(6)), (signal.SIGTERM, several(2))):
            table[f"{number.name} at: {point}"] = each(trials.struck, times, point, number, calls)
    for rank in (0, 1):
        table[f"rank {rank} of 2 killed"] = each(trials.rank_killed, several(5), rank)
    return table | {
        "torchrun killed": each(trials.launcher_signalled, several(5), signal.SIGKILL),
        "torchrun told to end": each(trials.launcher_signalled, several(5), signal.SIGTERM),
        "Ctrl-C on torchrun": each(trials.launcher_signalled, several(5), signal.SIGINT),
        "disk full": each(trials.disk_full, several(15)),
        "read-only folder": each(trials.read_only, several(5)),
        "checkpoint truncated": each(trials.damaged, several(15), "checkpoint", "truncated"),
        "checkpoint with flipped bits": each(trials.damaged, several(15), "checkpoint", "flipped"),
        "banks truncated": each(trials.damaged, several(15), "banks", "truncated"),
        "banks with flipped bits": each(trials.damaged, several(15), "banks", "flipped"),
        "one bit flipped, read only": each(trials.bits_flipped, several(5000)),
        "second run in the folder": each(trials.second_run, several(5)),
        "clock moved back": each(trials.clock_moved_back, several(5)),
    }


def long_run(shop: Workshop, steps: int) -> dict:
    """What 2,000 steps hold on to."""
    settings = shop.victim().settings
    victim = Victim(
        settings | {"batch_size": 1, "epochs": steps // 12 + 1, "checkpoint_every": 100, "log_every": 10}
    )
    command = [sys.executable, "-m", "tests.faults.growth", str(steps), *arguments(victim.settings)]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = json.loads(printed.stdout)
    middle, end = found["seen"][len(found["seen"]) // 2], found["seen"][-1]
    return {
        "steps": found["steps"],
        "bytes_per_step": found["bytes_per_step"],
        "middle": middle,
        "end": end,
        "flat": found["bytes_per_step"] < NOISE
        and all(end[kind] <= middle[kind] for kind in ("files", "threads", "children")),
    }


def summary(found: list[Trial]) -> dict:
    """One row of the table."""
    return {
        "tried": len(found),
        "survived": sum(trial.survived for trial in found),
        "most_steps_lost": max(trial.lost for trial in found),
        "notes": sorted({trial.note for trial in found if not trial.survived}),
    }


def show(rows: dict[str, dict], console: Console) -> None:
    """Print the table."""
    table = Table("fault", "tried", "survived", "most steps lost", "notes")
    for name, row in rows.items():
        table.add_row(
            name, *(str(row[key]) for key in ("tried", "survived", "most_steps_lost")), *row["notes"][:1]
        )
    console.print(table)


def main() -> int:
    """Run the campaign; status 1 where something did not survive."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="tests.faults.campaign", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=200, help="random kills; the rest keeps its proportion")
    parser.add_argument("--steps", type=int, default=2000, help="of the long run; 0 leaves it out")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--report", type=Path, default=Path("runs/faults.json"))
    options = parser.parse_args()
    console = Console(stderr=True)
    rows: dict[str, dict] = {}
    options.report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), options.seed)
        for name, fault in faults(options.kills).items():
            if options.only in name:
                rows[name] = summary(list(fault(shop)))
                console.print(name, rows[name])
                options.report.write_text(json.dumps({"faults": rows}, indent=1))
        report: dict = {"faults": rows}
        if options.steps:
            report["long_run"] = long_run(shop, options.steps)
            console.print(report["long_run"])
    options.report.write_text(json.dumps(report, indent=1) + "\n")
    show(rows, Console())
    whole = all(row["survived"] == row["tried"] for row in rows.values())
    return 0 if whole and report.get("long_run", {"flat": True})["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
