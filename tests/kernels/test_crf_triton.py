import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.crf_tiles import into_slots, near_tiles, out_of_slots
from kernels.crf import dense_crf, operators, triton
from kernels.crf import tiles as crf_tiles
from kernels.crf.energy import Pairwise
from kernels.crf.gaussian import gaussian_matrices, gaussian_reach
from kernels.crf.tiles import BLOCK, build_tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAIRWISE = Pairwise(1.0, 3.0, 67.0, 3.0, 4.0)


def inputs(shape, seed=0, regions=3):
    """Probabilities (B, C, H, W) and images of a few colours each, with shades and noise."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = shape
    probabilities = torch.randn(shape, generator=generator).softmax(dim=1)
    colours = torch.randint(30, 220, (batch, 3, regions), generator=generator)
    seeds = torch.rand(regions, 2, generator=generator) * torch.tensor([height, width])
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    region = torch.cdist(pixels, seeds).argmin(dim=1).view(height, width)
    shade = 20 * torch.arange(width) // width
    noise = torch.randint(0, 6, (batch, 3, height, width), generator=generator)
    images = colours[:, :, region] + shade + noise
    return probabilities.to(DEVICE), images.to(torch.uint8).to(DEVICE)


def check(probabilities, images, slack=2e-6, **parameters):
    """Hold |kernel - truth| against |reference in float32 - truth|; half-precision messages on a GPU."""
    truth = dense_crf(probabilities.double(), images, impl="torch", **parameters)
    marginals = dense_crf(probabilities, images, impl="triton", tolerance=0, **parameters)
    assert marginals.dtype == torch.float32
    reference = dense_crf(probabilities.float(), images, impl="torch", **parameters)
    halves = triton.MESSAGE_DTYPE.itemsize < 4
    assert (marginals - truth).abs().max() <= (reference - truth).abs().max() + (2e-3 if halves else slack)


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (2, 21, 9, 13), (1, 2, 17, 1), (1, 3, 1, 1), (1, 70, 2, 3)])
def test_equals_the_reference(shape, nan_memory):
    check(*inputs(shape), iterations=3)


@pytest.mark.parametrize("pixels", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_sizes_around_a_tile(pixels):
    check(*inputs((1, 3, 1, pixels)), iterations=2)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 11), st.integers(1, 11)),
    sxy=st.sampled_from([0.5, 3.0]),
    srgb=st.sampled_from([3.0, 40.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_any_shape(shape, sxy, srgb, seed):
    check(*inputs(shape, seed), iterations=2, gaussian_sxy=sxy, bilateral_sxy=4 * sxy, bilateral_srgb=srgb)


def test_ten_iterations():
    check(*inputs((1, 4, 8, 9)), slack=1e-5)


def test_golden_at_a_quarter_of_its_size(golden):
    # The vector's library is reproduced on 96 % of the whole by the reference, which is held against here.
    g = golden("dense_crf")
    probabilities = torch.from_numpy(g["logits"])[None, :, :16, :20].softmax(dim=1).to(DEVICE)
    images = torch.from_numpy(g["image"])[:16, :20].permute(2, 0, 1)[None].to(DEVICE)
    labels = dense_crf(probabilities, images, impl="triton").argmax(dim=1)
    assert (labels == dense_crf(probabilities, images, impl="torch").argmax(dim=1)).float().mean() >= 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_by_differences(monkeypatch, dtype):
    monkeypatch.setattr(triton, "products_suffice", lambda *_: False)
    monkeypatch.setattr(triton, "MESSAGE_DTYPE", dtype)
    check(*inputs((2, 3, 9, 13)), iterations=3)


@pytest.mark.parametrize("srgb", [0.2, 1.0, 100.0])
def test_bandwidths_of_any_size(srgb):
    check(*inputs((1, 3, 9, 13)), slack=1e-5, iterations=2, bilateral_srgb=srgb)


def test_messages_in_half_precision(monkeypatch):
    monkeypatch.setattr(triton, "MESSAGE_DTYPE", torch.float16)
    check(*inputs((1, 5, 9, 8)), iterations=5)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-2, 1e-1])
def test_marginals_move_by_less_than_the_tolerance(tolerance):
    probabilities, images = inputs((1, 3, 14, 23))
    near = near_tiles(build_tiles(images, PAIRWISE), tolerance)
    assert near.float().mean() < 0.75
    marginals = dense_crf(probabilities, images, iterations=4, tolerance=tolerance, impl="triton")
    exact = dense_crf(probabilities, images, iterations=4, impl="torch")
    assert (marginals - exact).abs().max() < tolerance


def test_probabilities_of_zero_and_one():
    probabilities, images = inputs((1, 3, 5, 6))
    probabilities = (probabilities == probabilities.amax(dim=1, keepdim=True)).float()
    check(probabilities, images, iterations=3)


def test_non_contiguous_and_shared_inputs():
    probabilities, images = inputs((2, 3, 6, 5))
    expected = dense_crf(probabilities, images, iterations=2, impl="triton")
    permuted = [x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for x in (probabilities, images)]
    assert torch.equal(dense_crf(*permuted, iterations=2, impl="triton"), expected)
    shared = [x[:1].expand(2, -1, -1, -1) for x in (probabilities, images)]
    marginals = dense_crf(*shared, iterations=2, impl="triton")
    assert torch.equal(marginals, expected[:1].expand(2, -1, -1, -1))


def test_images_in_groups_give_what_all_at_once_do(monkeypatch):
    probabilities, images = inputs((3, 2, 7, 10))
    together = dense_crf(probabilities, images, iterations=2, impl="triton")
    monkeypatch.setattr(triton, "MAX_TILE_PAIRS", 8)
    assert torch.equal(dense_crf(probabilities, images, iterations=2, impl="triton"), together)


def test_filter_of_one_image_is_the_same_bits_in_any_batch():
    _, images = inputs((3, 1, 7, 10))
    values = torch.rand(3, 2 * BLOCK, 8, generator=torch.Generator().manual_seed(5)).to(DEVICE)

    def filtered(images, values):
        return triton.bilateral_kernel(images, PAIRWISE, 0.0).filter(values.to(triton.MESSAGE_DTYPE))

    alone = [filtered(images[i, None], values[i, None]) for i in range(3)]
    assert torch.equal(torch.cat(alone), filtered(images, values))


def test_every_pixel_has_one_slot():
    _, images = inputs((2, 1, 13, 17))
    tiles = build_tiles(images, PAIRWISE)
    pixels = torch.arange(13 * 17, device=DEVICE)
    assert tiles.order.shape == (2, 4 * BLOCK)
    assert torch.equal(tiles.order.gather(1, tiles.slot), pixels.expand(2, -1))
    values = torch.rand(2, 3, len(pixels), device=DEVICE)
    slots = into_slots(tiles, values)
    assert torch.equal(out_of_slots(tiles, slots), values)
    assert (slots[:, 0] != 0).sum() == 2 * len(pixels)


def kd_order(coordinates, scale):
    """The leaves of one image's k-d tree, node by node; coordinates (5, S)."""
    order, tiles = torch.arange(coordinates.shape[1], device=DEVICE), coordinates.shape[1] // BLOCK
    for level in range((tiles - 1).bit_length()):
        node = (torch.arange(tiles) * 2**level).div(tiles, rounding_mode="floor").repeat_interleave(BLOCK)
        for i in range(2**level):
            inside = order[node == i]
            own = coordinates[:, inside]
            widest = ((own.amax(dim=1) - own.amin(dim=1)) * scale).argmax()
            order[node == i] = inside[own[widest].argsort(stable=True)]
    return order


@pytest.mark.parametrize("shape", [(13, 17), (40, 29), (1, 900)])
def test_the_order_is_that_of_trees_built_node_by_node(shape):
    _, images = inputs((2, 1, *shape), regions=5)
    coordinates, scale = crf_tiles._coordinates(images), torch.tensor(crf_tiles.feature_scale(PAIRWISE))
    scale = scale.to(DEVICE)
    expected = [kd_order(own, scale) for own in coordinates.unflatten(1, (2, -1)).unbind(1)]
    assert torch.equal(build_tiles(images, PAIRWISE).order, torch.stack(expected))
    narrow, wide = (crf_tiles._kd_order(coordinates, scale[:, None], 2, bits) for bits in (10, 40))
    assert torch.equal(narrow, wide)


def test_tiles_are_more_compact_than_rows_of_the_image():
    _, images = inputs((1, 1, 24, 32), regions=6)
    tiles = build_tiles(images, PAIRWISE)
    compact = near_tiles(tiles, 1e-3)
    by_row = out_of_slots(tiles, tiles.features).unflatten(2, (-1, BLOCK))
    in_rows = near_tiles(tiles._replace(low=by_row.amin(dim=3), high=by_row.amax(dim=3)), 1e-3)
    assert compact.float().mean() < 0.5 * in_rows.float().mean()


def most_weight(features):
    """The largest weight between the pixels of two tiles, of one image's features (5, S). (T, T)."""
    distance = torch.cdist(features.T, features.T, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp2(-distance.square()).unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).amax(dim=(1, 3))


def test_no_weight_between_far_tiles_reaches_the_tolerance():
    _, images = inputs((1, 1, 16, 20))
    tiles = build_tiles(images, PAIRWISE)
    near = near_tiles(tiles, 1e-2)[0]
    assert near[most_weight(tiles.features[0]) >= 1e-2].all()
    assert not near.all()
    assert near_tiles(tiles, 0).all()


@pytest.mark.parametrize("block", [16, 256])
def test_lists_hold_the_tiles_with_a_near_pixel_in_order(monkeypatch, nan_memory, block):
    monkeypatch.setattr(operators, "BLOCK_T", block)
    _, images = inputs((2, 1, 20, 61), regions=6)
    tiles = build_tiles(images, PAIRWISE)
    boxes = near_tiles(tiles, 1e-3)
    near = torch.stack([most_weight(features) for features in tiles.features]) >= 1e-3
    lists = triton.bilateral_kernel(images, PAIRWISE, 1e-3)
    assert torch.equal(lists.counts, near.sum(dim=2))
    assert near.sum() < boxes.sum() < near.numel()
    assert boxes[near].all()
    pairs = zip(lists.near.flatten(0, 1), lists.counts.flatten(), near.flatten(0, 1), strict=True)
    for found, number, expected in pairs:
        assert torch.equal(found[:number], expected.nonzero().flatten())


@pytest.mark.parametrize("sxy", [0.3, 1.0, 7.0, 1e9])
@pytest.mark.parametrize("sides", [(1, 1), (1, 70), (37, 18), (65, 33)])
def test_the_gaussian_filter_is_that_of_whole_matrices(sxy, sides, nan_memory):
    values = torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    along_rows, along_columns = gaussian_matrices(values, sxy)
    expected = along_rows.double() @ values.double() @ along_columns.double()
    for plane in (values, values.mT.contiguous().mT):
        filtered = operators.crf_gaussian(plane, along_rows, along_columns, gaussian_reach(sxy))
        torch.testing.assert_close(filtered, expected.float(), rtol=1e-6, atol=1e-7)


def test_images_whose_lists_do_not_fit_are_refused(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(triton, "near_lists", full)
    with pytest.raises(ValueError, match=r"0\.0 GiB of lists for images of 9x10, 2 at a .* 'pydensecrf'"):
        dense_crf(*inputs((2, 3, 9, 10)), impl="triton")


def test_more_messages_than_32_bits_count_are_refused():
    probabilities = torch.empty(1, 1, 1, 1, device=DEVICE).expand(1, 600, 2000, 2000)
    images = torch.empty(1, 1, 1, 1, dtype=torch.uint8, device=DEVICE).expand(1, 3, 2000, 2000)
    with pytest.raises(ValueError, match="got 600 classes of 2000x2000; use smaller images"):
        dense_crf(probabilities, images, impl="triton")


def test_compiles_into_one_graph():
    probabilities, images = inputs((1, 2, 5, 4))

    def crf(probabilities, images):
        return dense_crf(probabilities, images, iterations=2, impl="triton")

    compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(probabilities, images), crf(probabilities, images))


@pytest.mark.parametrize("srgb", [3.0, 0.5])
def test_the_operators_keep_their_contracts(srgb):
    dtype = triton.MESSAGE_DTYPE
    probabilities, images = inputs((2, 3, 5, 16))
    tiles = build_tiles(images, PAIRWISE)
    operands = triton.operands(tiles, images, PAIRWISE._replace(bilateral_srgb=srgb))
    assert (operands[0].dtype == torch.float16) == (srgb == 3)
    near = (tiles.low, tiles.high, *operands, 10.0, dtype)
    torch.library.opcheck(operators.near_lists, near)
    lists, count, scale = operators.near_lists(*near)
    values = torch.rand(2, 2 * BLOCK, 8, device=DEVICE, dtype=dtype)
    torch.library.opcheck(operators.crf_filter, (values, *operands, lists, count))
    sums, compat = torch.rand_like(values, dtype=torch.float32), (3.0, 4.0)
    for messages in ((None, None), (probabilities, sums)):
        update = (probabilities, *messages, tiles.slot, scale, *compat, dtype)
        torch.library.opcheck(operators.crf_update, update)
    weights = gaussian_matrices(images, 2.0)
    torch.library.opcheck(operators.crf_gaussian, (probabilities, *weights, 4))


def test_more_images_than_a_grid_has_programs_are_taken_in_turns(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    probabilities = torch.rand(5, 3, 6, 7, generator=generator).softmax(dim=1).to(DEVICE)
    images = torch.randint(0, 256, (5, 3, 6, 7), generator=generator).to(DEVICE, torch.uint8)
    together = dense_crf(probabilities, images, iterations=2, impl="triton")
    taken, mean_field = [], triton.mean_field
    monkeypatch.setattr(triton, "MAX_IMAGES", 2)
    monkeypatch.setattr(triton, "mean_field", lambda p, *rest: taken.append(len(p)) or mean_field(p, *rest))
    assert torch.equal(dense_crf(probabilities, images, iterations=2, impl="triton"), together)
    assert taken == [2, 2, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("classes", [21, 27, 171])
def test_agrees_with_the_reference_on_larger_images(classes):
    check(*inputs((2, classes, 96, 100), regions=12))


@pytest.mark.gpu
def test_skipping_at_full_size():
    probabilities, images = inputs((2, 21, 448, 448), regions=40)
    exact = dense_crf(probabilities, images, tolerance=0, impl="triton")
    marginals = dense_crf(probabilities, images, impl="triton")
    assert (marginals - exact).abs().max() < 1e-2
    assert (marginals.argmax(dim=1) == exact.argmax(dim=1)).float().mean() > 0.9999


@pytest.mark.gpu
def test_agrees_with_pydensecrf_at_full_size():
    pytest.importorskip("pydensecrf")
    probabilities, images = inputs((2, 21, 448, 448), regions=40)
    labels = dense_crf(probabilities, images, impl="triton").argmax(dim=1)
    published = dense_crf(probabilities, images, workers=1, impl="pydensecrf").argmax(dim=1)
    assert (labels == published).float().mean() >= 0.98


@pytest.mark.gpu
def test_a_batch_of_several_groups_gives_the_same_bits_twice(monkeypatch):
    monkeypatch.setattr(triton, "MAX_TILE_PAIRS", 2**27)
    probabilities, images = inputs((16, 21, 448, 448), regions=40)
    marginals = dense_crf(probabilities, images, impl="triton")
    assert torch.equal(dense_crf(probabilities, images, impl="triton"), marginals)
    assert torch.equal(dense_crf(probabilities[15:], images[15:], impl="triton"), marginals[15:])
