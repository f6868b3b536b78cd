"""The faults of the campaign: each function puts one fault to a run and tells what came of it.

A run survives where nothing hangs, what it says is a sentence, no more is lost than the steps since the last
checkpoint, and the same command with ``--resume`` comes to the bits of an undisturbed run.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hcl.commands import train
from hcl.engine.checkpoint import Checkpoints, load_checkpoint
from hcl.models.weights import CheckpointError
from tests.engine.support import arguments, same, saved_state, tiny_run, write_tiny_scenes
from tests.faults.victim import Victim, alive, children, until
from tests.forks import Fork

EPOCHS, STEPS, EVERY = 12, 36, 2
SAVES = {signal.SIGTERM, signal.SIGINT}
"""Signals that a run answers by saving, once it trains."""


class Trial(NamedTuple):
    """Whether the run survived, how many steps have to be done again, and what was seen where it did not."""

    survived: bool
    lost: int
    note: str = ""


class Workshop:
    """Where runs are made, and what undisturbed ones come to and how long they take.

    Args:
        folder: an empty one.
        seed: of all that is drawn.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.runs = 0
        self.scenes = folder / "scenes"
        write_tiny_scenes(self.scenes)
        self.expected, self.seconds = self._undisturbed()

    def victim(
        self, *, folder: Path | None = None, strike: tuple[str, ...] = (), ranks: bool = False
    ) -> Victim:
        """A run that has not begun, of 36 steps in 12 epochs, with a checkpoint every second step."""
        self.runs += 1
        settings = tiny_run(self.scenes, folder or self.folder / f"run{self.runs}")
        settings |= {"epochs": EPOCHS, "checkpoint_every": EVERY}
        return Victim(settings, strike=strike, ranks=ranks)

    def _undisturbed(self, *, ranks: bool = False) -> tuple[dict, float]:
        victim = self.victim(ranks=ranks)
        process = victim.start()
        until(lambda: victim.begun == 1, 120)
        begun = time.monotonic()
        until(lambda: victim.logged() == STEPS, 120)
        seconds = time.monotonic() - begun
        process.communicate()
        return saved_state(victim.folder), seconds

    def under_way(self, *, ranks: bool = False) -> tuple[Victim, Fork]:
        """A run that has got to a random place between its beginning and its last step, and its process."""
        if ranks and not hasattr(self, "expected_of_ranks"):
            self.expected_of_ranks, self.seconds_of_ranks = self._undisturbed(ranks=True)
        while True:
            victim = self.victim(ranks=ranks)
            process = victim.start()
            until(lambda: victim.begun == 1, 120)  # noqa: B023
            time.sleep(self.rng.uniform(0, self.seconds_of_ranks if ranks else self.seconds))
            if process.poll() is None and victim.logged() < STEPS:
                return victim, process
            process.communicate()
            shutil.rmtree(victim.folder)

    def finished(self, victim: Victim, *, expected: dict | None = None) -> Trial:
        """Continue a run to its end and hold it against the undisturbed one."""
        lost = max(victim.logged() - victim.saved(), 0)
        status, said = victim.finish("--resume")
        if status != 0 or "Traceback" in said:
            return Trial(False, lost, f"resuming gave {status}: {said[-300:]}")
        if not same(saved_state(victim.folder), expected or self.expected):
            return Trial(False, lost, "other bits")
        shutil.rmtree(victim.folder)
        return Trial(lost <= EVERY, lost, "" if lost <= EVERY else "more lost than since the last checkpoint")


def random_signal(shop: Workshop, number: signal.Signals, times: int) -> Iterator[Trial]:
    """Signal a run at random times, again and again as it is continued, until it gets to its end."""
    pending: list[Trial] = []
    done = 0
    while done < times:
        victim = shop.victim()
        while done < times:
            process = victim.start("--resume")
            begun = victim.begun
            # One in ten comes while the program starts, before it has opened its log.
            if shop.rng.random() > 0.1:
                until(lambda: victim.begun > begun or process.poll() is not None, 120)  # noqa: B023
            time.sleep(shop.rng.uniform(0, shop.seconds))
            if process.poll() is not None:
                process.communicate()
                break
            process.send_signal(number)
            _, said = process.communicate(timeout=120)
            done += 1
            pending.append(_after_signal(victim, number, process.returncode, said))
        end = shop.finished(victim)
        yield from (t if end.survived else t._replace(survived=False, note=end.note) for t in pending)
        pending = []


def _after_signal(victim: Victim, number: signal.Signals, status: int, said: str) -> Trial:
    lost = max(victim.logged() - victim.saved(), 0)
    if "Traceback" in said and number in SAVES and "from epoch" in said:
        return Trial(False, lost, said[-300:])
    stopped = status == 143 or number not in SAVES or status in (-number, 130, 1, 0)
    allowed = 0 if status == 143 else EVERY
    return Trial(stopped and lost <= allowed, lost, "" if stopped else f"status {status}")


def struck(shop: Workshop, point: str, number: signal.Signals, calls: int) -> Trial:
    """Signal a run the moment that it passes one of its points, a random time that it does."""
    call = str(shop.rng.randint(1, calls))
    victim = shop.victim(strike=(point, call, number.name))
    status, said = victim.finish()
    if status not in (143, -number) or "Traceback" in said:
        return Trial(False, 0, f"status {status}: {said[-300:]}")
    victim.strike = ()
    return shop.finished(victim)


def interrupted_twice(shop: Workshop) -> Trial:
    """Press Ctrl-C twice, the second time before the step is over or soon after."""
    victim, process = shop.under_way()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(shop.rng.choice([0, 0.002, 0.01]))
    _, said = process.communicate(timeout=120)
    if process.returncode not in (0, 130, 143) or "Traceback" in said:
        return Trial(False, 0, f"status {process.returncode}: {said[-300:]}")
    return shop.finished(victim)


def rank_killed(shop: Workshop, rank: int) -> Trial:
    """Kill one of two ranks; the other must end by itself, and say why, within half a minute."""
    victim, launcher = shop.under_way(ranks=True)
    ranks = children(launcher.pid)
    os.kill(ranks[rank], signal.SIGKILL)
    bounded = until(lambda: not any(map(alive, ranks)), 30)
    _, said = launcher.communicate(timeout=60)
    if not bounded or "lost its connection to the other ranks" not in said:
        return Trial(False, 0, f"ended in time: {bounded}; {said[-300:]}")
    return shop.finished(victim, expected=shop.expected_of_ranks)


def launcher_signalled(shop: Workshop, number: signal.Signals) -> Trial:
    """Signal torchrun, and with SIGINT its ranks as a terminal does: they must save and end in 30 seconds."""
    victim, launcher = shop.under_way(ranks=True)
    ranks = children(launcher.pid)
    if number == signal.SIGINT:
        os.killpg(launcher.pid, number)
    else:
        launcher.send_signal(number)
    if not until(lambda: not any(map(alive, ranks)), 30):
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
        return Trial(False, 0, "ranks left behind")
    _, said = launcher.communicate(timeout=60)
    if "stopped by SIG" not in said and victim.saved() < STEPS:
        return Trial(False, 0, f"status {launcher.returncode}: {said[-300:]}")
    return shop.finished(victim, expected=shop.expected_of_ranks)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of its own at ``folder``, in memory; needs the right to mount."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def disk_full(shop: Workshop) -> Trial:
    """Run out of disk somewhere between the first bytes and the fifth checkpoint, then be given room."""
    disk = shop.folder / f"disk{shop.runs}"
    with small_disk(disk, shop.rng.randint(8, 1600)):
        victim = shop.victim(folder=disk / "run")
        status, said = victim.finish()
        if status != 2 or "No space left on device" not in said.splitlines()[-1]:
            return Trial(False, 0, f"status {status}: {said[-300:]}")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        return shop.finished(victim)


def read_only(shop: Workshop) -> Trial:
    """Find the folder of a half-finished run read-only, and later writable again."""
    disk = shop.folder / f"disk{shop.runs}"
    with small_disk(disk, 65536):
        victim = shop.victim(folder=disk / "run")
        process = victim.start()
        until(lambda: victim.saved() >= 4, 120)
        process.kill()
        process.communicate()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        status, said = victim.finish("--resume")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        if status != 2 or "cannot be written to" not in said or "images" in said:
            return Trial(False, 0, f"status {status}: {said[-300:]}")
        return shop.finished(victim)


def damaged(shop: Workshop, what: str, kind: str) -> Trial:
    """Truncate the newest checkpoint of a half-finished run or its banks, or flip one to eight bits."""
    victim = shop.victim()
    process = victim.start()
    until(lambda: victim.saved() >= 3 * EVERY, 120)
    process.kill()
    process.communicate()
    newest = Checkpoints(victim.folder).newest
    if what == "banks":
        epoch = load_checkpoint(newest)["banks"]["epoch"]
        newest = victim.folder / "banks" / f"{epoch}.0of1.pt"
    content = bytearray(newest.read_bytes())
    if kind == "truncated":
        content = content[: shop.rng.randrange(len(content))]
    for _ in range(shop.rng.randint(1, 8) if kind == "flipped" else 0):
        content[shop.rng.randrange(len(content))] ^= 1 << shop.rng.randrange(8)
    newest.write_bytes(content)
    return shop.finished(victim)


def bits_flipped(shop: Workshop) -> Trial:
    """Read a checkpoint with one bit flipped: it must be refused, or be what it was."""
    path = shop.folder / "flipped.pt"
    whole = shop.folder / "run1" / "checkpoint.pt"
    content = bytearray(whole.read_bytes())
    content[shop.rng.randrange(len(content))] ^= 1 << shop.rng.randrange(8)
    path.write_bytes(content)
    try:
        state = load_checkpoint(path)
    except CheckpointError:
        return Trial(True, 0)
    return Trial(same(state, load_checkpoint(whole)), 0, "silently other numbers")


def second_run(shop: Workshop) -> Trial:
    """Start a second run in the folder of one that is under way."""
    victim = shop.victim()
    process = victim.start()
    until(lambda: victim.begun == 1, 120)
    status, said = victim.finish("--resume")
    process.communicate()
    if status != 2 or str(victim.folder) not in said or f"process {process.pid}" not in said:
        return Trial(False, 0, f"status {status}: {said[-300:]}")
    return shop.finished(victim)


def clock_moved_back(shop: Workshop) -> Trial:
    """Continue a killed run while the clock is a random time behind all that it has written."""
    victim = shop.victim()
    process = victim.start()
    until(lambda: victim.saved() >= 4, 120)
    process.kill()
    process.communicate()
    future = time.time() + shop.rng.uniform(60, 1e9)
    for path in victim.folder.iterdir():
        os.utime(path, (future, future))
    clock, back = time.time, shop.rng.uniform(0, 1e9)
    time.time = lambda: clock() - back
    try:
        train.main([*arguments(victim.settings), "--resume"])
    finally:
        time.time = clock
    return shop.finished(victim)
