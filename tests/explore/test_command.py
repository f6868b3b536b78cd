"""The command as it is typed: it serves its page until it is interrupted."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_served_until_ctrl_c(checkpoint, scenes):
    arguments = [
        *("explore", f"--checkpoint={checkpoint}", "--data.kind=scenes", f"--data.root={scenes}"),
        *("--data.split=val", "--images=2", "--size=64", "--device=cpu", "--port=0"),
    ]
    with subprocess.Popen(
        [sys.executable, "evaluate.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "computing the tokens of 2 images of scenes-val\n"
            line = process.stdout.readline()
            address = re.match(r"http://127\.0\.0\.1:\d+", line)[0]
            page = httpx2.get(f"{address}/api/page").json()
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert len(page["images"]) == 2
    assert page["clusters"] == 20
    assert (process.returncode, output, error) == (0, "", "")
