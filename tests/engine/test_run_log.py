from hcl.engine.run_log import RunLog
from tests.engine.support import records


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path):
    log = RunLog(tmp_path, enabled=True, step=0)
    log.record("clustering", 0, rows=5)
    for step in (1, 2, 3):
        log.record("step", step, loss=1.0 / step)
    log.record("clustering", 3, rows=6)
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')

    log = RunLog(tmp_path, enabled=True, step=3)
    log.record("clustering", 3, rows=7)
    log.close()
    assert [(r["kind"], r["step"]) for r in records(tmp_path)] == [
        ("clustering", 0), ("step", 1), ("step", 2), ("step", 3), ("clustering", 3)
    ]  # fmt: skip
    assert records(tmp_path)[-1]["rows"] == 7


def test_a_quiet_rank_writes_nothing(tmp_path):
    log = RunLog(tmp_path / "run", enabled=False, step=0)
    log.record("step", 1, loss=1.0)
    log.say("nothing")
    log.close()
    assert not (tmp_path / "run").exists()


def test_scalars_reach_tensorboard(tmp_path):
    log = RunLog(tmp_path, enabled=True, step=0)
    log.record("step", 1, loss=0.5)
    log.close()
    assert any(path.name.startswith("events.") and path.stat().st_size > 100 for path in tmp_path.iterdir())
