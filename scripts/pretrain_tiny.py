"""Pretrain the `tiny` backbone on generated scenes, without labels: ``python scripts/pretrain_tiny.py``.

A student learns from its own moving average, the teacher; of the crops that both see, patches are hidden from
the student. Three losses, none of which reads a label:

- [CLS] tokens of different crops of a scene share a prototype (DINO, its targets balanced by Sinkhorn-Knopp);
- a masked patch has the prototype that the teacher gives the patch itself (iBOT);
- [CLS] attends to what is rare: the target weights an image's patches by how few patches of the batch are
  like them in the teacher. So LOST (Siméoni et al., 2021) picks its seed, within an image. DINO's
  attention comes to objects by itself, but not within the images that a CPU sees in minutes.
"""

import copy
import math
import platform
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from hcl.data.scenes import draw_scene
from hcl.files import written_whole
from hcl.models.backbones import BACKBONES, TINY_WEIGHTS
from hcl.models.vit import VisionTransformer
from pipelines.normalise import MEAN, STD

SCENE_SIZE = 224
LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass
class PretrainConfig:
    """Settings of a pretraining; the defaults made the file that the project ships.

    Args:
        output: file to write, in safetensors format.
        steps: optimiser steps.
        batch_size: scenes a step.
        scenes: how many are drawn.
        seed: of scenes, crops, colours, masks and first weights.
        lr: learning rate at its height, after `warmup` steps; it falls along a cosine.
        warmup: steps.
        prototypes: of the [CLS] tokens, and as many of the patches.
        momentum: of the teacher at the start; it rises along a cosine to `last_momentum`.
        last_momentum: of the teacher at the end.
        global_size, local_size: sides of the crops in pixels: two large ones and a small one of every scene.
        cls_weight, patch_weight, attention_weight: of the three losses.
        threads: of torch.
    """

    output: str = str(TINY_WEIGHTS)
    steps: int = 550
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


class Output(NamedTuple):
    """Of one size of crop: [CLS] (B, D), patches (B, N, D), what [CLS] attends to (B, heads, N)."""

    cls: Tensor
    patches: Tensor
    attention: Tensor


class Projector(nn.Module):
    """Tokens (M, D) to cosines with prototypes (M, K); batch norms spread them from the first step on."""

    def __init__(self, width: int, prototypes: int, hidden: int = 256, dim: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, dim),
            nn.BatchNorm1d(dim, affine=False),
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (M, D) to cosines (M, K)."""
        return F.normalize(self.mlp(tokens), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Network(nn.Module):
    """The backbone with its two projectors and the token that stands in for masked patches."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        shape = BACKBONES["tiny"].vit
        self.vit = VisionTransformer(shape)
        self.cls = Projector(shape.width, prototypes)
        self.patches = Projector(shape.width, prototypes)
        self.mask_token = nn.Parameter(torch.zeros(shape.width))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.25 * layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        for table in (self.vit.cls_token, self.vit.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Output:
        """Images (B, 3, S, S) through the backbone; where mask (B, N) is true, without their patch."""
        vit = self.vit
        side = images.shape[-1] // vit.config.patch_size
        positions = vit.patch_positions((side, side))
        tokens = vit.embed(images, vit.patch_embed.proj.weight, positions)
        if mask is not None:
            hidden = torch.where(mask[..., None], self.mask_token + positions, tokens[:, 1:])
            tokens = torch.cat([tokens[:, :1], hidden], dim=1)
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        # The tokens are left to the other losses: the third one only teaches [CLS] where to look among them.
        attention = vit.blocks[-1].cls_row(tokens.detach())[..., 1:]
        tokens = vit.norm(vit.blocks[-1](tokens))
        return Output(tokens[:, 0], tokens[:, 1:], attention)


def draw_scenes(config: PretrainConfig) -> Tensor:
    """All scenes, (scenes, 3, 224, 224) uint8, without their labels."""
    drawn = (draw_scene(SCENE_SIZE, np.random.default_rng([config.seed, i]))[0] for i in range(config.scenes))
    pixels = np.empty((config.scenes, SCENE_SIZE, SCENE_SIZE, 3), np.uint8)
    for place, scene in zip(pixels, drawn, strict=True):
        place[:] = scene
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def crop(images: Tensor, size: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Random parts (B, 3, size, size) of images, of these shares of their area, half of them mirrored."""
    count = len(images)
    share = torch.empty(count).uniform_(*area, generator=generator)
    ratio = torch.empty(count).uniform_(-0.29, 0.29, generator=generator).exp()
    extent = torch.stack([share * ratio, share / ratio]).sqrt().clamp(max=1)
    centre = (2 * torch.rand(2, count, generator=generator) - 1) * (1 - extent)
    mirrored = torch.rand(count, generator=generator) < 0.5
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = torch.where(mirrored, -extent[0], extent[0])
    affine[:, 1, 1] = extent[1]
    affine[:, :, 2] = centre.T
    grid = F.affine_grid(affine, [count, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Other hue, saturation, brightness and contrast for each image (B, 3, S, S) in [0, 1]; some blurred."""

    def factor(spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(len(images), 1, 1, generator=generator) - 1)

    saturation, contrast, brightness = factor(0.3), factor(0.2), factor(0.2)
    desaturate = saturation * torch.eye(3) + (1 - saturation) * LUMA.expand(3, 3)
    turn = _hue_rotation(0.03 * math.pi * (factor(1.0) - 1))
    colours = torch.einsum("nij,njhw->nihw", turn @ desaturate * contrast * brightness, images)
    mean = (images.mean((2, 3)) @ LUMA)[:, None, None, None]
    pixels = (colours + ((1 - contrast) * brightness)[..., None] * mean).clamp(0, 1)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.2
    return torch.where(chosen, blurred, pixels)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about the grey axis by angles (B, 1, 1)."""
    k = 3**-0.5
    cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
    return angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * cross


def normalise(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1] as the backbone takes them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def draw_masks(count: int, patches: int, generator: torch.Generator) -> Tensor:
    """(count, patches) bool: of every other image, up to four fifths of the patches."""
    share = 0.8 * torch.rand(count, 1, generator=generator)
    share[::2] = 0
    return torch.rand(count, patches, generator=generator) < share


@torch.no_grad()
def balanced(cosines: Tensor, temperature: float = 0.05, rounds: int = 3) -> Tensor:
    """Targets (M, K), each of sum 1, that use all prototypes alike (Sinkhorn-Knopp)."""
    weights = ((cosines.float() - cosines.max()) / temperature).exp()
    for _ in range(rounds):
        weights = weights / (weights.sum(0) + 1e-9)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
    return weights


@torch.no_grad()
def rarity(patches: Tensor, generator: torch.Generator, *, alike: float = 0.8, share: float = 0.02) -> Tensor:
    """Attention (B, N), of sum 1 an image, that falls with the share of the batch's patches that are alike.

    Args:
        patches: (B, N, D) of the teacher.
        generator: draws the up to 1024 patches that every patch is compared with.
        alike: least cosine of standardised patches that are alike.
        share: of alike patches at which the attention is e times less than that of a patch like no other.
    """
    flat = patches.float().flatten(0, 1)
    flat = F.normalize((flat - flat.mean(0)) / flat.std(0), dim=-1)
    others = flat[torch.randperm(len(flat), generator=generator)[:1024]]
    common = (flat @ others.T > alike).float().mean(1).view(patches.shape[:2])
    return (-common / share).softmax(dim=1)


def cross_entropy(targets: Tensor, cosines: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean over rows (M, K)."""
    return -(targets * F.log_softmax(cosines.float() / temperature, dim=-1)).sum(-1).mean()


class Pretraining:
    """Student, teacher and optimiser, and one step after the other."""

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
        """One optimiser step on scenes (B, 3, 224, 224) uint8; the losses."""
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
        """The three losses on scenes (B, 3, 224, 224) in [0, 1]."""
        config, generator = self.config, self.generator
        large = torch.cat([self.view(scenes, config.global_size, (0.3, 1.0)) for _ in range(2)])
        small = self.view(scenes, config.local_size, (0.15, 0.5))
        mask = draw_masks(len(large), (config.global_size // 16) ** 2, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                seen = self.teacher(large)
                targets = balanced(self.teacher.cls(seen.cls)).chunk(2)
                patch_targets = balanced(self.teacher.patches(seen.patches[mask]))
            wide = self.student(large, mask)
            narrow = self.student(small)
            first, second = self.student.cls(wide.cls).chunk(2)
            local = self.student.cls(narrow.cls)
            patches = self.student.patches(wide.patches[mask])
        pairs = ((targets[0], second), (targets[1], first), (targets[0], local), (targets[1], local))
        attention = wide.attention.float()
        attention = attention / attention.sum(-1, keepdim=True)
        wanted = rarity(seen.patches, generator)[:, None]
        return {
            "cls": torch.stack([cross_entropy(target, cosines) for target, cosines in pairs]).mean(),
            "patches": cross_entropy(patch_targets, patches),
            "attention": -(wanted * (attention + 1e-8).log()).sum(-1).mean(),
        }

    def view(self, scenes: Tensor, size: int, area: tuple[float, float]) -> Tensor:
        """A crop of every scene in other colours, (B, 3, size, size), as the backbone takes it."""
        return normalise(recolour(crop(scenes, size, area, self.generator), self.generator))


def pretrain(config: PretrainConfig) -> tuple[VisionTransformer, list[dict[str, float]]]:
    """The teacher's backbone, and the losses of every step."""
    scenes = draw_scenes(config)
    pretraining = Pretraining(config)
    record = []
    for _ in (bar := tqdm(range(config.steps), unit="step", disable=None)):
        chosen = torch.randint(len(scenes), (config.batch_size,), generator=pretraining.generator)
        record.append(pretraining.step(scenes[chosen]))
        bar.set_postfix({name: f"{value:.2f}" for name, value in record[-1].items()})
    return pretraining.teacher.vit, record


def save_weights(vit: VisionTransformer, path: Path, facts: dict[str, Any]) -> None:
    """Write the backbone in half precision, with facts about its making as the file's metadata."""
    halves = {name: tensor.half().contiguous() for name, tensor in vit.state_dict().items()}
    with written_whole(path) as file:
        file.write(save(halves, metadata={name: str(fact) for name, fact in facts.items()}))


def main(arguments: list[str] | None = None) -> int:
    """Pretrain as the arguments say and write the file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = ArgumentParser(description="Pretrain the tiny backbone on generated scenes, without labels.")
    parser.add_class_arguments(PretrainConfig)
    config = PretrainConfig(**vars(parser.parse_args(arguments)))
    torch.set_num_threads(config.threads)
    started, busy = time.perf_counter(), time.process_time()
    vit, record = pretrain(config)
    last = record[-min(50, len(record)) :]
    facts = {
        "command": shlex.join(["python", "scripts/pretrain_tiny.py", *arguments]),
        **asdict(config),
        "wall_seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(time.process_time() - busy),
        "final_losses": {name: round(float(np.mean([step[name] for step in last])), 3) for name in last[0]},
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
    }
    facts.pop("output")
    save_weights(vit, Path(config.output), facts)
    print(f"{config.output}: {facts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
