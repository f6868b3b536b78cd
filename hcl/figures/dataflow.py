"""How data flows through each kernel, as SVG: ``python -m hcl.figures.dataflow`` writes docs/images/kernels.

Text is in coloured boxes and lines are grey, so that a picture is readable on light and dark backgrounds.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

COLUMN, ROW, BOX, LINE, MARGIN = 216, 92, 184, 16, 12
FILLS = {"input": "#cfe3f7", "step": "#e9e9ee", "output": "#cdebd2", "never": "#f7d9d5"}
"""Meaning of the colours: an input, a step of the kernel, a result, and what is never stored in memory."""


class Box(NamedTuple):
    """A box: column and row of its centre, its lines of text, and its kind, a key of `FILLS`."""

    column: float
    row: float
    text: str
    kind: str = "step"


class Diagram(NamedTuple):
    """A picture: its title (read out by screen readers), boxes by name, and arrows "from > to"."""

    title: str
    boxes: Mapping[str, Box]
    arrows: tuple[str, ...]


DIAGRAMS = {
    "aggregate": Diagram(
        "aggregate_tokens: each level is normalised, upsampled and written next to the others",
        {
            "s0": Box(0, 0, "level 0\n(B, 1 + N, D)", "input"),
            "s1": Box(0, 1, "level 1\n(B, 1 + h₁w₁, D)", "input"),
            "s2": Box(0, 2, "level 2\n(B, 1 + h₂w₂, D)", "input"),
            "norm": Box(1, 1, "LayerNorm\nin registers,\nrow by row"),
            "copy": Box(2, 0, "copy patches,\nrepeat CLS"),
            "up": Box(2, 1.5, "bilinear weights of\nfour neighbours"),
            "z": Box(3, 1, "z\n(B, N, (L+1)·D)", "output"),
        },
        ("s0 > norm", "s1 > norm", "s2 > norm", "norm > copy", "norm > up", "copy > z", "up > z"),
    ),
    "fuse": Diagram(
        "fuse_tokens: each level is projected on its own small grid, then gathered, added and normalised",
        {
            "s0": Box(0, 0, "level 0\n(B, 1 + N, D)", "input"),
            "s1": Box(0, 1, "level 1\n(B, 1 + h₁w₁, D)", "input"),
            "s2": Box(0, 2, "level 2\n(B, 1 + h₂w₂, D)", "input"),
            "w0": Box(1, 0, "W₀ x₀  and\nW_c cls + b"),
            "w1": Box(1, 1, "W₁ x₁"),
            "w2": Box(1, 2, "W₂ x₂"),
            "sum": Box(2, 1, "one pass: gather,\nadd, LayerNorm"),
            "out": Box(3, 1, "fused tokens\n(B, N, E)", "output"),
            "z": Box(3, 2, "z is never written", "never"),
        },
        ("s0 > w0", "s1 > w1", "s2 > w2", "w0 > sum", "w1 > sum", "w2 > sum", "sum > out"),
    ),
    "attention": Diagram(
        "attend: a tile of queries meets the keys and values of its own sequence only",
        {
            "q": Box(0, 0, "q, k, v of all tokens\n(B, N, 3, heads, d)", "input"),
            "n": Box(0, 1, "lengths of the\nsequences, sum N", "input"),
            "tile": Box(1, 0.5, "a tile of queries\nof one sequence,\nimage and head"),
            "pass": Box(2, 0.5, "over tiles of keys:\nrunning maximum, sum\nand weighted values"),
            "out": Box(3, 0.5, "out\n(B, N, heads·d)", "output"),
            "never": Box(2, 1.5, "n × n weights are\nnever written", "never"),
        },
        ("q > tile", "n > tile", "tile > pass", "pass > out"),
    ),
    "foreground": Diagram(
        "foreground_mask: from the CLS token's attention to a map of the foreground",
        {
            "a": Box(0, 0, "CLS attention\n(B, heads, h, w)", "input"),
            "mean": Box(1, 0, "mean of heads,\n7×7 blur, σ = 0.6"),
            "cut": Box(2, 0, "largest cells that\nhold θ of the mass"),
            "drop": Box(3, 0, "drop components\nof 1 or 2 cells"),
            "mask": Box(3, 1, "mask\n(B, h, w) bool", "output"),
            "theta": Box(2, 1, "keep_mass θ", "input"),
        },
        ("a > mean", "mean > cut", "theta > cut", "cut > drop", "drop > mask"),
    ),
    "fba": Diagram(
        "fba_contrastive: tokens meet the centroids of their own bank only, tile by tile",
        {
            "k": Box(0, 0, "k (M, C)\nmomentum tokens", "input"),
            "q": Box(0, 1, "q (M, C)\nonline tokens", "input"),
            "fg": Box(0, 2, "foreground\n(M,) bool", "input"),
            "c": Box(1, 2, "centroids c, ĉ\nof that bank", "input"),
            "part": Box(1, 1, "stable partition:\na tile of tokens is\nof one bank"),
            "tile": Box(2, 1, "over tiles of centroids:\nargmin of k, running\nlog-sum-exp of q"),
            "loss": Box(3, 0, "loss_fg, loss_bg\nand counts", "output"),
            "assign": Box(3, 1, "assignment (M,)", "output"),
            "never": Box(2, 2, "(M, K) is never\nwritten", "never"),
        },
        (
            *("k > part", "q > part", "fg > part", "part > tile", "c > tile"),
            *("tile > loss", "tile > assign"),
        ),
    ),
    "kmeans": Diagram(
        "lloyd_step: the nearest centroid of every row, then sums of the rows of every cluster",
        {
            "x": Box(0, 0, "rows x (N, D)", "input"),
            "c": Box(0, 1, "centroids c (K, D)", "input"),
            "near": Box(1, 0.5, "argmin ‖c‖² − 2 x·c,\na running minimum\nover tiles of c"),
            "assign": Box(2, 0, "assignment (N,)", "output"),
            "sum": Box(2, 1, "sort rows by cluster,\nsum in float64,\nin a fixed order"),
            "out": Box(3, 1, "sums (K, D), counts,\ninertia", "output"),
            "ranks": Box(3, 2, "all_reduce, then\nc = sums / counts"),
            "never": Box(2, 2, "(N, K) is never\nwritten", "never"),
        },
        ("x > near", "c > near", "near > assign", "near > sum", "sum > out", "out > ranks"),
    ),
    "momentum": Diagram(
        "momentum_centroid_update: centroids follow the means of the tokens that are nearest to them",
        {
            "k": Box(0, 0, "tokens (M, C)\nof a batch", "input"),
            "c": Box(0, 1, "centroids c (K, C)", "input"),
            "near": Box(1, 0, "nearest centroid,\nsums, counts"),
            "ranks": Box(2, 0, "sum over ranks:\nmeans μ, counts n"),
            "move": Box(2, 1, "n > 0:\nc ← m c + (1 − m) μ"),
            "seed": Box(2, 2, "unused too long:\nthe worst-explained\ntoken"),
            "out": Box(3, 1, "centroids (K, C),\nsteps unused (K,)", "output"),
        },
        ("k > near", "c > near", "near > ranks", "ranks > move", "move > out", "seed > out", "c > move"),
    ),
    "crf": Diagram(
        "dense_crf: every iteration filters the marginals with two kernels and takes a softmax",
        {
            "p": Box(0, 0, "probabilities\n(B, C, H, W)", "input"),
            "i": Box(0, 1, "image\n(B, 3, H, W) uint8", "input"),
            "u": Box(1, 0, "unary −log p"),
            "f": Box(1, 1, "pixels sorted by\nposition and colour,\nfar tiles left out"),
            "g": Box(2, 0.5, "Gaussian and bilateral\nfilter of Q,\nnormalised"),
            "s": Box(3, 0.5, "Q = softmax(−unary\n+ messages), and\nagain: 10 times"),
            "out": Box(3, 1.5, "marginals Q\n(B, C, H, W)", "output"),
            "never": Box(2, 1.5, "weights of pixel pairs\nare never written", "never"),
        },
        ("p > u", "i > f", "u > g", "f > g", "g > s", "s > out"),
    ),
}


def svg(diagram: Diagram) -> str:
    """Return the picture as an SVG document."""
    top = min(box.row for box in diagram.boxes.values())
    boxes = {name: box._replace(row=box.row - top) for name, box in diagram.boxes.items()}
    width = (max(box.column for box in boxes.values()) + 1) * COLUMN
    height = (max(box.row for box in boxes.values()) + 1) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" font-family="sans-serif" font-size="13">',
        f"<title>{escape(diagram.title)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#808690"/></marker></defs>',
    ]
    parts += [_arrow(*(boxes[name] for name in arrow.split(" > "))) for arrow in diagram.arrows]
    parts += [_box(box) for box in boxes.values()]
    return "\n".join([*parts, "</svg>", ""])


def _centre(box: Box) -> tuple[float, float]:
    return (box.column + 0.5) * COLUMN, (box.row + 0.5) * ROW


def _height(box: Box) -> float:
    return LINE * (box.text.count("\n") + 1) + MARGIN


def _box(box: Box) -> str:
    x, y = _centre(box)
    height = _height(box)
    lines = box.text.split("\n")
    first = y - LINE * (len(lines) - 1) / 2 + 4.5
    text = "".join(
        f'<tspan x="{x:g}" y="{first + LINE * number:g}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{x - BOX / 2:g}" y="{y - height / 2:g}" width="{BOX}" height="{height:g}" rx="6" '
        f'fill="{FILLS[box.kind]}"/><text text-anchor="middle" fill="#1b1d22">{text}</text>'
    )


def _arrow(start: Box, end: Box) -> str:
    """Draw an arrow with right angles: sideways between columns, straight up or down within one."""
    (x1, y1), (x2, y2) = _centre(start), _centre(end)
    if start.column == end.column:
        down = 1 if y2 > y1 else -1
        path = f"M{x1:g} {y1 + down * _height(start) / 2:g}V{y2 - down * _height(end) / 2:g}"
    else:
        right = 1 if x2 > x1 else -1
        x1 += right * BOX / 2
        x2 -= right * BOX / 2
        path = f"M{x1:g} {y1:g}H{x2 - right * 16:g}V{y2:g}H{x2:g}"
    return f'<path d="{path}" fill="none" stroke="#808690" stroke-width="1.6" marker-end="url(#head)"/>'


def write_all(folder: Path) -> None:
    """Write a file for every diagram."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, diagram in DIAGRAMS.items():
        (folder / f"{name}.svg").write_text(svg(diagram), encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(*sys.argv[1:2] or ("docs/images/kernels",)))
