"""Images with bytes changed at random, in a process of their own: DALI shows all of them or names each.

HCL_FUZZ says how many.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.data.corpus import encoded, png

COUNT = int(os.environ.get("HCL_FUZZ", "300"))
ORIGINALS = [
    *(encoded(format) for format in ("JPEG", "JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")),
    encoded("JPEG", progressive=True),
    encoded("JPEG", "CMYK"),
    encoded("PNG", "P"),
    encoded("TIFF", compression="tiff_lzw"),
    png(np.random.default_rng(0).integers(0, 1 << 16, (40, 30, 4)), bits=16, color=6),
]
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from hcl.data.dataset import DataConfig, open_dataset
from pipelines.draws import ViewsConfig
from pipelines.labelled_images import EvaluationImages
from pipelines.training_views import TrainingViews
from pipelines.usable import usable

dataset = usable(open_dataset(DataConfig("folder", sys.argv[1])), "skip")
batches = np.array_split(np.arange(len(dataset)), len(dataset) // 16 + 1)
for batch in TrainingViews(dataset, ViewsConfig(size=32), seed=0).batches(1, batches):
    assert all(np.isfinite(view).all() for view in batch.views)
seen = sum(len(batch.indices) for batch in EvaluationImages(dataset, size=32, mode="shorter-crop"))
print(seen, len(dataset.skipped))
"""


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        # The header is where most depends on a byte.
        start = int(rng.integers(len(damaged) if rng.random() < 0.5 else min(len(damaged), 700)))
        length = int(rng.choice([0, 1, 1, 16, len(damaged) // 3]))
        damaged[start : start + length] = rng.bytes(rng.integers(0, 8))
    return bytes(damaged)


def test_damaged_images_are_shown_or_skipped_by_name(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        content = damage(ORIGINALS[index % len(ORIGINALS)], rng)
        (tmp_path / f"{index:06d}.jpg").write_bytes(content)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120 + COUNT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen, skipped = map(int, done.stdout.split())
    assert seen + skipped == COUNT
    assert min(seen, skipped) > COUNT / 10
