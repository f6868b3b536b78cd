"""Pretraining of the `tiny` backbone: a student network learns from a teacher.

The teacher is a moving average of the student and sees the same crops in other colours; in every other crop,
some patches are hidden from the student. There are three losses, none of which uses labels:

- [CLS] tokens of a scene's crops share a prototype (DINO, its targets balanced by Sinkhorn-Knopp);
- a patch, hidden or not, has the prototype that the teacher gives the patch in other colours (iBOT);
- [CLS] attends to what is rare: in the target, a patch has the more weight, the fewer patches of the batch
  resemble it in the teacher. LOST (Siméoni et al., 2021) picks its seed in this way, within an image. DINO's
  attention finds objects by itself, but needs more images than a CPU can process in minutes.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hcl.data.scenes import draw_scene
from hcl.models.backbones import TINY_WEIGHTS
from hcl.models.vit import VisionTransformer
from scripts.tiny.losses import balanced, cross_entropy, rarity
from scripts.tiny.network import Network
from scripts.tiny.views import crop, draw_masks, recoloured

SCENE_SIZE = 224


@dataclass
class PretrainConfig:
    """Settings of a pretraining; the defaults produced the file that the project ships.

    Args:
        output: file to write, in safetensors format.
        steps: optimiser steps.
        batch_size: scenes per step.
        scenes: number of scenes to draw.
        seed: seed of scenes, crops, colours, masks and initial weights.
        lr: peak learning rate, reached after `warmup` steps; it falls along a cosine.
        warmup: steps of linear warm-up.
        prototypes: number of prototypes of the [CLS] tokens, and likewise of the patches.
        momentum: momentum of the teacher at the start; it rises along a cosine to `last_momentum`.
        last_momentum: momentum of the teacher at the end.
        global_size, local_size: sides of the crops in pixels: two large and one small crop per scene.
        cls_weight, patch_weight, attention_weight: weights of the three losses.
        threads: CPU threads of torch.
    """

    output: str = str(TINY_WEIGHTS)
    steps: int = 150
    batch_size: int = 64
    scenes: int = 4000
    seed: int = 0
    lr: float = 2e-3
    warmup: int = 40
    prototypes: int = 64
    momentum: float = 0.9
    last_momentum: float = 0.995
    global_size: int = 96
    local_size: int = 64
    cls_weight: float = 0.3
    patch_weight: float = 1.0
    attention_weight: float = 3.0
    threads: int = 1


def draw_scenes(config: PretrainConfig) -> Tensor:
    """Draw all scenes, (scenes, 3, 224, 224) uint8, without their labels."""
    drawn = (draw_scene(SCENE_SIZE, np.random.default_rng([config.seed, i]))[0] for i in range(config.scenes))
    pixels = np.empty((config.scenes, SCENE_SIZE, SCENE_SIZE, 3), np.uint8)
    for place, scene in zip(pixels, drawn, strict=True):
        place[:] = scene
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class Pretraining:
    """Student, teacher, optimiser, and their training steps."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.student = Network(config.prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        parameters = list(self.student.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr)
        self.done = 0

    def step(self, scenes: Tensor) -> dict[str, float]:
        """Take one optimiser step on scenes (B, 3, 224, 224) uint8; return the losses."""
        config = self.config
        remaining = 0.5 * (1 + math.cos(math.pi * self.done / config.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * min(1.0, (self.done + 1) / config.warmup) * (remaining + 0.01)
        losses = self.losses(scenes.float() / 255)
        loss = (
            config.cls_weight * losses["cls"]
            + config.patch_weight * losses["patches"]
            + config.attention_weight * losses["attention"]
        )
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 3.0)
        self.optimiser.step()
        momentum = config.last_momentum - (config.last_momentum - config.momentum) * remaining
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.lerp_(new, 1 - momentum)
        self.done += 1
        return {"loss": loss.item()} | {name: value.item() for name, value in losses.items()}

    def losses(self, scenes: Tensor) -> dict[str, Tensor]:
        """Compute the three losses on scenes (B, 3, 224, 224) in [0, 1]."""
        config, generator = self.config, self.generator
        large = torch.cat([crop(scenes, config.global_size, (0.2, 0.9), generator) for _ in range(2)])
        small = crop(scenes, config.local_size, (0.06, 0.3), generator)
        mask = draw_masks(len(large), (config.global_size // 16) ** 2, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                seen = self.teacher(recoloured(large, generator))
                targets = balanced(self.teacher.cls(seen.cls)).chunk(2)
                patch_targets = balanced(self.teacher.patches(seen.patches.flatten(0, 1)))
            wide = self.student(recoloured(large, generator), mask)
            narrow = self.student(recoloured(small, generator))
            views = (*self.student.cls(wide.cls).chunk(2), self.student.cls(narrow.cls))
            patches = self.student.patches(wide.patches.flatten(0, 1))
        attention = wide.attention.float()
        attention = attention / attention.sum(-1, keepdim=True)
        wanted = rarity(seen.patches, generator)[:, None]
        return {
            "cls": torch.stack([cross_entropy(t, view) for t in targets for view in views]).mean(),
            "patches": cross_entropy(patch_targets, patches),
            "attention": -(wanted * (attention + 1e-8).log()).sum(-1).mean(),
        }


def pretrain(config: PretrainConfig) -> tuple[VisionTransformer, list[dict[str, float]]]:
    """Pretrain; return the teacher's backbone and the losses of every step."""
    scenes = draw_scenes(config)
    pretraining = Pretraining(config)
    record = []
    for _ in (bar := tqdm(range(config.steps), unit="step", disable=None)):
        chosen = torch.randint(len(scenes), (config.batch_size,), generator=pretraining.generator)
        record.append(pretraining.step(scenes[chosen]))
        bar.set_postfix({name: f"{value:.2f}" for name, value in record[-1].items()})
    return pretraining.teacher.vit, record
