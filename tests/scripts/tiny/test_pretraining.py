"""A pretraining of a few steps learns, and its seed decides everything."""

import numpy as np
import torch

from scripts.tiny.pretraining import PretrainConfig, pretrain

FEW_STEPS = PretrainConfig(steps=64, batch_size=16, scenes=16, warmup=4, prototypes=8, global_size=64)


def test_a_few_steps_lower_every_loss():
    _, record = pretrain(FEW_STEPS)
    for name in ("loss", "cls", "patches", "attention"):
        losses = [step[name] for step in record]
        assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_same_seed_gives_the_same_weights():
    short = PretrainConfig(steps=2, batch_size=4, scenes=4, prototypes=8, global_size=64)
    first, second = (pretrain(short)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
