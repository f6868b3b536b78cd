import math

import pytest
import torch

from kernels.crf import MAX_TORCH_PIXELS, dense_crf

PARAMETERS = {
    "gaussian_sxy": 1.5,
    "gaussian_compat": 2.0,
    "bilateral_sxy": 3.0,
    "bilateral_srgb": 20.0,
    "bilateral_compat": 5.0,
}


def inputs(shape, seed=0):
    """Probabilities (B, C, H, W) and photographs' like: one colour each side of an edge, and noise."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = shape
    probabilities = torch.randn(shape, generator=generator).softmax(dim=1)
    edge = 90 * (torch.arange(width) > width // 2).expand(batch, 3, height, width)
    noise = torch.randint(0, 40, (batch, 3, height, width), generator=generator)
    return probabilities, (edge + noise).to(torch.uint8)


def by_definition(probabilities, image, iterations):
    """The messages of every pair of pixels of one image, one by one in Python's floats."""
    classes, height, width = probabilities.shape
    p = PARAMETERS
    pixels = [(y, x) for y in range(height) for x in range(width)]

    def weight(i, j, sxy, srgb):
        distance = sum((a - b) ** 2 for a, b in zip(i, j, strict=True)) / sxy**2
        if srgb is not None:
            distance += sum((int(c[i]) - int(c[j])) ** 2 for c in image.numpy()) / srgb**2
        return math.exp(-distance / 2)

    def normalised(sxy, srgb=None):
        weights = [[weight(i, j, sxy, srgb) for j in pixels] for i in pixels]
        sums = [sum(row) for row in weights]
        return [
            [w / math.sqrt(a * b) for w, b in zip(row, sums, strict=True)]
            for row, a in zip(weights, sums, strict=True)
        ]

    def softmax(logits):
        powers = [math.exp(x) for x in logits]
        return [x / sum(powers) for x in powers]

    gaussian, bilateral = normalised(p["gaussian_sxy"]), normalised(p["bilateral_sxy"], p["bilateral_srgb"])
    unary = [[-math.log(max(float(probabilities[c][i]), 1e-5)) for c in range(classes)] for i in pixels]
    marginals = [softmax([-u for u in row]) for row in unary]
    for _ in range(iterations):
        marginals = [
            softmax(
                [
                    sum(
                        (p["gaussian_compat"] * g + p["bilateral_compat"] * b) * q[c]
                        for g, b, q in zip(gaussian[i], bilateral[i], marginals, strict=True)
                    )
                    - unary[i][c]
                    for c in range(classes)
                ]
            )
            for i in range(len(pixels))
        ]
    return torch.tensor(marginals, dtype=torch.float64).T.reshape(classes, height, width)


def test_equals_the_definition():
    probabilities, images = inputs((2, 3, 4, 5))
    probabilities[0, 0, 0, 0] = 0
    probabilities = probabilities.double()
    expected = [by_definition(p, i, 4) for p, i in zip(probabilities, images, strict=True)]
    marginals = dense_crf(probabilities, images, iterations=4, impl="torch", **PARAMETERS)
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(marginals.double(), torch.stack(expected), rtol=0, atol=1e-7)


def test_golden(golden):
    # The vector's image is noise, where the library's lattice is at its worst: with the channels in another
    # order the library agrees with itself on 97.8 % of it.
    g = golden("dense_crf")
    probabilities = torch.from_numpy(g["logits"]).softmax(dim=0)[None]
    image = torch.from_numpy(g["image"]).permute(2, 0, 1)[None]
    marginals = dense_crf(probabilities, image, impl="torch")
    assert (marginals[0].argmax(dim=0).numpy() == g["labels"]).mean() >= 0.96


def test_no_iterations_give_the_probabilities_back():
    probabilities, images = inputs((1, 4, 5, 6))
    marginals = dense_crf(probabilities, images, iterations=0, impl="torch")
    torch.testing.assert_close(marginals, probabilities)


def test_labels_follow_the_edge_of_the_image():
    _, images = inputs((1, 2, 12, 12))
    left = (torch.arange(12) <= 6).expand(12, 12)
    generator = torch.Generator().manual_seed(0)
    believed = torch.where(torch.rand(12, 12, generator=generator) < 0.25, ~left, left)
    probabilities = torch.where(believed, 0.7, 0.3)
    probabilities = torch.stack([1 - probabilities, probabilities])[None]
    labels = dense_crf(probabilities, images, bilateral_srgb=20, impl="torch").argmax(dim=1)[0]
    assert (believed != left).sum() > 20
    assert torch.equal(labels.bool(), left)


def test_images_strides_and_dtypes_do_not_matter():
    probabilities, images = inputs((3, 2, 5, 7))
    expected = dense_crf(probabilities, images, impl="torch", **PARAMETERS)
    permuted = [x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for x in (probabilities, images)]
    assert torch.equal(dense_crf(*permuted, impl="torch", **PARAMETERS), expected)
    assert torch.equal(dense_crf(probabilities[1:2], images[1:2], impl="torch", **PARAMETERS), expected[1:2])
    half = dense_crf(probabilities.bfloat16(), images, impl="torch", **PARAMETERS)
    assert torch.equal(half, dense_crf(probabilities.bfloat16().float(), images, impl="torch", **PARAMETERS))


@pytest.mark.parametrize("impl", ["torch", "triton", "pydensecrf"])
def test_there_is_no_gradient(impl):
    if impl == "pydensecrf":
        pytest.importorskip("pydensecrf")
    probabilities, images = inputs((1, 3, 4, 5))
    marginals = dense_crf(probabilities.requires_grad_(), images, iterations=2, workers=1, impl=impl)
    assert not marginals.requires_grad


@pytest.mark.parametrize("impl", ["auto", "torch", "triton", "pydensecrf"])
def test_no_images(impl):
    probabilities, images = inputs((0, 3, 4, 5))
    marginals = dense_crf(probabilities, images, impl=impl)
    assert marginals.shape == (0, 3, 4, 5)
    assert marginals.dtype == torch.float32


def test_images_too_large_for_torch_are_named():
    probabilities, images = inputs((1, 1, 1, MAX_TORCH_PIXELS + 1))
    with pytest.raises(ValueError, match=r"10000 of them, got 1x10001.*'triton'"):
        dense_crf(probabilities, images, impl="torch")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("iterations", -1),
        ("gaussian_sxy", 0.0),
        ("bilateral_sxy", -1.0),
        ("bilateral_srgb", math.nan),
        ("gaussian_compat", -0.5),
        ("bilateral_compat", math.inf),
        ("tolerance", 1.0),
        ("tolerance", -0.1),
        ("tolerance", math.nan),
        ("workers", 0),
        ("impl", "cuda"),
    ],
)
def test_parameters_out_of_range_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} must .*{value}"):
        dense_crf(*inputs((1, 2, 3, 3)), **{argument: value})


@pytest.mark.parametrize(
    ("probabilities", "images", "match"),
    [
        (torch.ones(2, 3, 3), torch.ones(2, 3, 3, 3).byte(), r"probabilities: .*\(2, 3, 3\)"),
        (torch.ones(1, 0, 3, 3), torch.ones(1, 3, 3, 3).byte(), r"probabilities: .*\(1, 0, 3, 3\)"),
        (torch.ones(1, 2, 3, 3).int(), torch.ones(1, 3, 3, 3).byte(), "probabilities: .*torch.int32"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3, 3), "images: .*torch.float32"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3, 4).byte(), r"images: .*\(1, 3, 3, 4\)"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3, 3, device="meta").byte(), "meta.*move one"),
        (torch.ones(1, 1, 1, 2**16), torch.ones(1, 3, 1, 2**16).byte(), "1x65536"),
    ],
)
def test_inputs_that_do_not_fit_are_named(probabilities, images, match):
    with pytest.raises(ValueError, match=match):
        dense_crf(probabilities, images)


def test_the_largest_image_that_torch_takes_is_taken(monkeypatch):
    monkeypatch.setattr("kernels.crf.MAX_TORCH_PIXELS", 12)
    assert dense_crf(*inputs((1, 2, 3, 4)), impl="torch").shape == (1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"12.*1x13"):
        dense_crf(*inputs((1, 2, 1, 13)), impl="torch")
