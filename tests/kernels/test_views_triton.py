import pytest
import torch

from kernels.views import photometric_views, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDED = torch.float16 if DEVICE == "cuda" else torch.float32
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


def inputs(side, views=2, batch=2, seed=0, sigma=2.0):
    """Doubled crops, and draws of which some blur and some take the colours away."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand(views, batch, generator=generator)

    factors = [uniform(0.7, 1.3) for _ in range(3)]
    blur = uniform(0, sigma) * (uniform(0, 1) > 0.3)
    draws = torch.stack([*factors, uniform(-36, 36), blur, (uniform(0, 1) > 0.7).float()], dim=2)
    doubled = 255 * torch.rand(batch, side, side, 3, generator=generator)
    return doubled.to(DEVICE), draws.to(DEVICE)


def truth(doubled, draws):
    return reference.photometric_views(doubled.double(), draws.double(), MEAN, STD)


def assert_near(doubled, draws):
    """As near as the reference, but for what is rounded: colours, R's weights, the first product."""
    expected = truth(doubled, draws)
    plain = photometric_views(doubled, draws, MEAN, STD, impl="torch")
    found = photometric_views(doubled, draws, MEAN, STD, impl="triton")
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    rounding = 3 * torch.finfo(ROUNDED).eps * expected.abs().max()
    assert (found - expected).abs().max() <= (plain - expected).abs().max() + rounding


@pytest.mark.parametrize("side", [8, 20, 34])
@pytest.mark.parametrize("views", [1, 2])
def test_views_are_those_of_the_reference(side, views):
    assert_near(*inputs(side, views))


def test_the_widest_blur_is_mirrored_at_both_borders():
    assert_near(*inputs(16, sigma=14 / 3))


def test_every_element_is_written(nan_memory):
    assert photometric_views(*inputs(20), MEAN, STD, impl="triton").isfinite().all()


def test_a_view_is_the_same_bits_in_every_batch():
    doubled, draws = inputs(20, batch=3)
    together = photometric_views(doubled, draws, MEAN, STD, impl="triton")
    for i in range(3):
        alone = photometric_views(doubled[i : i + 1], draws[:, i : i + 1], MEAN, STD, impl="triton")
        assert torch.equal(alone[:, 0], together[:, i])
    one = photometric_views(doubled, draws[1:], MEAN, STD, impl="triton")
    assert torch.equal(one[0], together[1])


def test_strides_do_not_matter():
    doubled, draws = inputs(8)
    apart = doubled.mT.contiguous().mT
    strided = torch.stack([draws, draws], dim=3)[..., 0]
    found, expected = (
        photometric_views(*given, MEAN, STD, impl="triton") for given in ((apart, strided), (doubled, draws))
    )
    assert torch.equal(found, expected)


def test_autocast_changes_nothing():
    given = inputs(8)
    expected = photometric_views(*given, MEAN, STD, impl="triton")
    with torch.autocast(DEVICE, torch.bfloat16):
        assert torch.equal(photometric_views(*given, MEAN, STD, impl="triton"), expected)


def test_no_image_is_no_view():
    doubled, draws = inputs(8)
    assert photometric_views(doubled[:0], draws[:, :0], MEAN, STD, impl="triton").shape == (2, 0, 3, 4, 4)


def test_is_an_operator_of_torch():
    doubled, draws = inputs(8)
    torch.library.opcheck(torch.ops.hcl_kernels.photometric_views, (doubled, draws, list(MEAN), list(STD)))


@pytest.mark.gpu
@pytest.mark.parametrize("side", [448, 2 * 322])
def test_documented_sizes(side):
    assert_near(*inputs(side, batch=4))


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    """3,600 views of 448 pixels have more than 2^31 values."""
    doubled, draws = (x.repeat_interleave(900, dim=i) for i, x in enumerate(inputs(448, batch=2)))
    made = photometric_views(doubled, draws, MEAN, STD, impl="triton")
    first = photometric_views(doubled[:1], draws[:, :1], MEAN, STD, impl="triton")
    assert torch.equal(made[:, :1], first)
    assert torch.equal(made[:, 899], made[:, 0])
    assert torch.equal(made[:, 1799], made[:, 900])
