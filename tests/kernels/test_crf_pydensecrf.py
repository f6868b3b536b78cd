import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest
import torch

from kernels.crf import dense_crf, pydensecrf, submit_dense_crf

pytest.importorskip("pydensecrf")


def inputs(batch, classes=3, side=20):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(batch, classes, side, side + 3, generator=generator).softmax(dim=1)
    images = torch.randint(0, 256, (batch, 3, side, side + 3), generator=generator).to(torch.uint8)
    return probabilities, images


def test_golden(golden):
    # Rounding decides into which simplex of the lattice a pixel falls, so builds of the library for different
    # machines differ in single pixels; a wrong order of channels alone leaves 97.8 % of the labels.
    g = golden("dense_crf")
    probabilities = torch.from_numpy(g["logits"]).softmax(dim=0)[None]
    image = torch.from_numpy(g["image"]).permute(2, 0, 1)[None]
    marginals = dense_crf(probabilities, image, impl="pydensecrf", workers=1)[0].numpy()
    assert (marginals.argmax(axis=0) == g["labels"]).mean() >= 0.995
    assert np.quantile(np.abs(marginals - g["marginals"]).max(axis=0), 0.9) < 1e-3


def test_agrees_with_the_exact_form_on_smooth_images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 4, 6, 6, generator=generator)
    probabilities = torch.nn.functional.interpolate(2 * coarse, size=(48, 48), mode="bilinear").softmax(dim=1)
    colours = torch.rand(2, 3, 5, 5, generator=generator) * 255
    images = torch.nn.functional.interpolate(colours, size=(48, 48), mode="nearest").to(torch.uint8)
    published = dense_crf(probabilities, images, impl="pydensecrf", workers=1)
    exact = dense_crf(probabilities, images, impl="torch")
    assert (published.argmax(dim=1) != probabilities.argmax(dim=1)).float().mean() > 0.02
    assert (published.argmax(dim=1) == exact.argmax(dim=1)).float().mean() >= 0.98


def test_parameters_reach_the_library():
    probabilities, images = inputs(1)
    plain = dense_crf(probabilities, images, workers=1)
    for changed in (
        {"iterations": 3},
        {"gaussian_sxy": 3.0},
        {"gaussian_compat": 1.0},
        {"bilateral_sxy": 9.0},
        {"bilateral_srgb": 30.0},
        {"bilateral_compat": 9.0},
    ):
        assert not torch.equal(dense_crf(probabilities, images, workers=1, **changed), plain), changed
    torch.testing.assert_close(dense_crf(probabilities, images, workers=1, iterations=0), probabilities)


def test_workers_give_the_bits_of_one_process_in_order():
    probabilities, images = inputs(5)
    expected = dense_crf(probabilities, images, workers=1)
    assert torch.equal(dense_crf(probabilities, images, workers=2), expected)
    permuted = [x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for x in (probabilities, images)]
    assert torch.equal(dense_crf(*permuted, workers=2), expected)


def test_a_dead_worker_is_named_and_replaced():
    probabilities, images = inputs(4)
    expected = dense_crf(probabilities, images, workers=2)
    pending = [submit_dense_crf(*inputs(40), workers=2) for _ in range(2)]
    for process in pydensecrf._pool(2)._processes.values():
        os.kill(process.pid, signal.SIGKILL)
    for own in pending:
        with pytest.raises(RuntimeError, match="one of 2 pydensecrf workers died"):
            own.result()
    assert torch.equal(dense_crf(probabilities, images, workers=2), expected)


def test_batches_in_flight_give_the_bits_of_one_process_in_order():
    probabilities, images = (whole.split([3, 1, 2]) for whole in inputs(6))
    pending = [submit_dense_crf(*batch, workers=2) for batch in zip(probabilities, images, strict=True)]
    expected = [dense_crf(*batch, workers=1) for batch in zip(probabilities, images, strict=True)]
    assert all(torch.equal(own.result(), other) for own, other in zip(pending, expected, strict=True))


def test_marginals_may_be_asked_for_again_when_others_lie_where_they_lay():
    batches = [[tensor.roll(shift, 2) for tensor in inputs(3)] for shift in (0, 5)]
    first = submit_dense_crf(*batches[0], workers=2)
    expected = first.result().clone()
    second = submit_dense_crf(*batches[1], workers=2)
    assert second.place.begin == first.place.begin
    assert not torch.equal(second.result(), expected)
    assert torch.equal(first.result(), expected)


def test_marginals_that_were_cancelled_when_they_were_done_are_not_given():
    pending = submit_dense_crf(*inputs(2), workers=2)
    wait(pending.tasks)
    pending.cancel()
    with pytest.raises(CancelledError, match="others may lie in their place"):
        pending.result()


def test_one_image_that_is_waited_for_needs_no_worker(monkeypatch):
    monkeypatch.setattr(pydensecrf, "InWorkers", None)
    assert dense_crf(*inputs(1), workers=2).shape == (1, 3, 20, 23)


def test_what_was_cancelled_is_left_undone_and_leaves_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pending = submit_dense_crf(*inputs(40), workers=2)
    pending.cancel()
    assert sum(task.cancelled() for task in pending.tasks) >= 30
    assert not any(tmp_path.iterdir())
    assert torch.isfinite(dense_crf(*inputs(2), workers=2)).all()


def test_a_batch_that_was_collected_or_cancelled_leaves_its_place_to_the_next():
    taken = pydensecrf._pool(2).exchange.taken
    first, second, third = (submit_dense_crf(*inputs(3), workers=2) for _ in range(3))
    first.result()
    second.cancel()
    fourth = submit_dense_crf(*inputs(3), workers=2)
    assert fourth.place.begin == first.place.begin
    first.cancel()  # which must not give away the place of the fourth
    assert taken == {third.place, fourth.place}
    assert torch.equal(third.result(), fourth.result())
    assert not taken


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[evaluation\]'"):
        dense_crf(*inputs(1))


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_workers_end_with_the_program(how, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import torch\n"
        "from kernels.crf import dense_crf, pydensecrf\n"
        "if __name__ == '__main__':\n"
        "    p, i = torch.full((2, 2, 3, 4), 0.5), torch.zeros(2, 3, 3, 4, dtype=torch.uint8)\n"
        "    dense_crf(p, i, workers=2)\n"
        "    print(*pydensecrf._pool(2)._processes, flush=True)\n"
        "    input()\n"
    )
    program = started(script)
    workers = [int(number) for number in program.stdout.readline().split()]
    assert workers
    if how == "exit":
        program.stdin.write("\n")
        program.stdin.close()
    else:
        program.kill()
    program.wait(timeout=60)
    wait_for_the_end_of(workers)


def test_nothing_lies_in_the_temporary_folder_during_the_work_and_after_a_kill(tmp_path):
    script, folder = tmp_path / "program.py", tmp_path / "temporary"
    folder.mkdir()
    script.write_text(
        "import torch\n"
        "from kernels.crf import pydensecrf, submit_dense_crf\n"
        "if __name__ == '__main__':\n"
        "    p, i = torch.full((40, 2, 90, 90), 0.5), torch.zeros(40, 3, 90, 90, dtype=torch.uint8)\n"
        "    pending = submit_dense_crf(p, i, workers=2)\n"
        "    pending.tasks[0].result()\n"
        "    print(*pydensecrf._pool(2)._processes, flush=True)\n"
        "    input()\n"
    )
    program = started(script, TMPDIR=str(folder))
    workers = [int(number) for number in program.stdout.readline().split()]
    assert workers
    assert not any(folder.iterdir())
    program.kill()
    program.wait(timeout=60)
    wait_for_the_end_of(workers)
    assert not any(folder.iterdir())


def started(script, **environment):
    return subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def wait_for_the_end_of(workers):
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their program"
        time.sleep(0.05)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
