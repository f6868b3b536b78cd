"""The Slurm script, with stand-ins for srun and scontrol: two "nodes" on this machine."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hcl.commands import train
from tests.engine.conftest import scenes_root, tiny_settings
from tests.engine.support import arguments, records

__all__ = ["scenes_root", "tiny_settings"]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "slurm_train.sh"
SRUN_ON_TWO_NODES = """#!/bin/bash
shift
"$@" & first=$!
"$@" & second=$!
wait $first && wait $second
"""
SRUN_UNTIL_TOLD_TO_END = """#!/bin/bash
trap 'echo saved >> "$NOTES"; exit 143' TERM
touch "$NOTES"
while true; do sleep 0.1; done
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$NOTES"; fi
"""
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def environment(folder: Path, srun: str) -> dict[str, str]:
    """What Slurm sets, and commands that stand in for its own."""
    for name, content in (("srun", srun), ("scontrol", SCONTROL)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    job = {
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": str(random.randrange(10**6)),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }
    own = {"NOTES": str(folder / "notes"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return os.environ | job | own | {"PATH": f"{folder}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo"}


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder, "step")]


@pytest.mark.slow
def test_two_nodes_give_the_losses_of_one_process(tiny_settings, tmp_path):
    settings = tiny_settings | {"epochs": 1}
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert train.main(arguments(settings | {"output": str(alone)})) == 0
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments(settings | {"output": str(together)})],
        env=environment(tmp_path, SRUN_ON_TWO_NODES),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "2 x cpu" in done.stderr
    assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
    assert len(losses(together)) == 3


def test_before_the_time_is_up_the_run_saves_and_the_job_is_queued_again(tmp_path):
    given = environment(tmp_path, SRUN_UNTIL_TOLD_TO_END)
    notes = Path(given["NOTES"])
    job = subprocess.Popen(["bash", str(SCRIPT)], env=given)
    try:
        while not notes.exists():
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=20) == 0
    finally:
        job.kill()
    assert notes.read_text().splitlines() == ["saved", f"requeue {given['SLURM_JOB_ID']}"]


def test_a_step_has_the_processors_of_its_job(tmp_path):
    given = environment(tmp_path, '#!/bin/bash\necho "$SRUN_CPUS_PER_TASK" >> "$NOTES"\n')
    job = given | {"SLURM_CPUS_PER_TASK": "7"}
    assert subprocess.run(["bash", str(SCRIPT)], env=job, timeout=20).returncode == 0
    assert Path(given["NOTES"]).read_text() == "7\n"


def test_a_run_that_fails_is_not_queued_again(tmp_path):
    given = environment(tmp_path, "#!/bin/bash\nexit 7\n")
    assert subprocess.run(["bash", str(SCRIPT)], env=given, timeout=20).returncode == 7
    assert not Path(given["NOTES"]).exists()


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_bash_reads_the_script(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
