import json

import numpy as np
import pytest

from benchmarks.crf_workers import main

pytest.importorskip("pydensecrf")


def run(capsys, *arguments):
    assert main([*arguments, "--rounds", "3", "--side", "24", "--classes", "3"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_round_is_timed_in_one_process_and_in_several(capsys):
    report = run(capsys, "--images", "5", "--batch_size", "2")
    assert (report["images"], report["calls"]) == (5, 3)
    alone = report["seconds_one_process"]
    for way in ("", "_in_flight"):
        together = report[f"seconds_workers{way}"]
        assert len(alone) == len(together) == 3
        assert report[f"speedup{way}"] == pytest.approx(np.median(alone) / np.median(together))


def test_images_come_from_files(capsys, tmp_path):
    file = tmp_path / "scenes.npz"
    logits, images = np.zeros((3, 2, 4, 4), np.float32), np.zeros((3, 3, 8, 8), np.uint8)
    np.savez(file, logits=logits, images=images)
    assert run(capsys, "--photographs", str(file))["images"] == 3


def test_a_shortened_option_is_refused_with_the_whole_name(capsys):
    with pytest.raises(SystemExit):
        main(["--round", "1"])
    assert "there is no setting --round; did you mean --rounds?" in capsys.readouterr().err


def test_one_worker_is_nothing_to_compare(capsys):
    with pytest.raises(SystemExit):
        main(["--workers", "1"])
    assert "at least 2" in capsys.readouterr().err
