import torch

from hcl.commands import train
from hcl.engine.determinism import reproducible
from tests.engine.support import arguments, same, saved_state


def test_the_same_command_gives_the_same_bits_and_the_flag_changes_none_on_a_cpu(tiny_settings, tmp_path):
    # One thread alone could not but add up in one order.
    torch.set_num_threads(2)
    states = []
    for name, flag in (("first", True), ("second", True), ("without", False)):
        settings = tiny_settings | {"deterministic": flag, "output": str(tmp_path / name)}
        assert train.main([*arguments(settings), "--device=cpu"]) == 0
        states.append(saved_state(settings["output"]))
    assert same(states[0], states[1])
    assert same(states[0], states[2])


def test_another_seed_gives_other_bits(tiny_settings, tmp_path):
    states = []
    for seed in (7, 8):
        settings = tiny_settings | {"seed": seed, "epochs": 1, "output": str(tmp_path / str(seed))}
        assert train.main(arguments(settings)) == 0
        states.append(saved_state(settings["output"]))
    assert not same(states[0]["online_seg_head"], states[1]["online_seg_head"])


def test_an_operation_without_a_reproducible_form_is_refused_only_within(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with reproducible(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    with reproducible(False):
        assert not torch.are_deterministic_algorithms_enabled()
