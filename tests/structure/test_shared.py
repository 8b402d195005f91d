"""Weights that are shared: hashed ones, code books, Huffman codes, and files of few bits."""

import io

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from smallnets.quantize import genie
from smallnets.structure import (
    STARTS,
    CodebookConv2d,
    CodebookLinear,
    HashedConv2d,
    HashedLinear,
    codebook_bits,
    hash_positions,
    huffman_bits,
    huffman_lengths,
    k_means,
    load_packed,
    pack_codes,
    packed_state,
    start_centroids,
    stored_bits,
    to_codebook,
    unpack_codes,
)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hashes_are_even_fixed_and_independent():
    bucket, sign = hash_positions(60_000, 6)
    counts = torch.bincount(bucket, minlength=6)
    assert counts.min() > 9_600
    assert counts.max() < 10_400
    assert abs(float(sign.double().mean())) < 0.02
    for b in range(6):
        assert abs(float(sign[bucket == b].double().mean())) < 0.05
    again = hash_positions(60_000, 6)[0]
    other = hash_positions(60_000, 6, seed=1)[0]
    assert torch.equal(bucket, again)
    assert 0.1 < float((bucket == other).double().mean()) < 0.23
    assert bucket[:8].tolist() == hash_positions(8, 6)[0].tolist()


def test_a_hashed_layer_is_its_formula_and_its_gradient_sums_over_members():
    layer = HashedLinear(6, 5, 7, seed=3).double()
    bucket, sign = hash_positions(30, 7, 3)
    weight = layer.looked_up()
    for position in range(30):
        value = layer.values[bucket[position]] * sign[position]
        assert weight.flatten()[position] == value
    upstream = drawn(5, 6)
    (gradient,) = torch.autograd.grad(weight, layer.values, upstream)
    for b in range(7):
        members = bucket == b
        expected = (upstream.flatten() * sign)[members].sum()
        torch.testing.assert_close(gradient[b], expected)


def test_a_layer_that_is_hashed_already_is_found_again():
    first = HashedLinear(6, 5, 7, seed=3)
    again = HashedLinear.from_linear(first.dense(), 7, seed=3)
    used = torch.bincount(first.bucket, minlength=7) > 0
    torch.testing.assert_close(again.values[used], first.values[used])
    other = HashedLinear.from_linear(first.dense(), 7, seed=4)
    assert not torch.allclose(other.looked_up(), first.looked_up())


def test_every_start_is_of_the_layer_and_has_the_least_error_of_its_kind():
    layer = nn.Conv2d(4, 6, 3)
    hashed = HashedConv2d.from_conv(layer, 20)
    error = (layer.weight - hashed.looked_up()).square().sum()
    with torch.no_grad():
        hashed.values[4] += 0.01
    assert (layer.weight - hashed.looked_up()).square().sum() > error


def test_the_seed_travels_with_the_values():
    one, other = HashedLinear(6, 5, 7, seed=3), HashedLinear(6, 5, 7, seed=4)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.looked_up(), other.looked_up())
    assert "bucket" not in one.state_dict()
    assert stored_bits(one) == 32 * (7 + 5)


@pytest.mark.parametrize("k", [1, 2, 7, 32])
@pytest.mark.parametrize("seed", [0, 1])
def test_k_means_is_that_of_scikit_learn(k, seed):
    w = drawn(200, seed=seed) ** 3  # few large ones: some centroids lose all members
    start = start_centroids(w, k)
    centroids, labels = k_means(w, start)
    theirs = KMeans(k, init=start[:, None].numpy(), n_init=1, tol=0, algorithm="lloyd").fit(
        w[:, None].numpy()
    )
    error = (w - centroids[labels]).square().sum()
    assert float(error) == pytest.approx(theirs.inertia_, rel=1e-9)
    nearest = (w[:, None] - centroids).abs().argmin(dim=1)
    assert torch.equal(nearest, labels)


def test_starts():
    w = drawn(5, 40)
    linear = start_centroids(w, 4)
    assert linear[0] == w.min()
    assert linear[-1] == pytest.approx(float(w.max()))
    torch.testing.assert_close(linear.diff(), linear.diff()[:1].expand(3))
    density = start_centroids(w, 4, "density")
    shares = [(w < c).double().mean().item() for c in density]
    assert shares == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.01)
    generator = torch.Generator().manual_seed(0)
    random = start_centroids(w, 4, "random", generator)
    assert all(one in w for one in random)
    assert set(STARTS) == {"linear", "density", "random"}


def test_as_many_centroids_as_different_weights_are_exact():
    layer = nn.Linear(4, 3)
    for start in STARTS:
        made = CodebookLinear.from_linear(layer, 12, start=start)
        torch.testing.assert_close(made.looked_up(), layer.weight)
    made = CodebookLinear.from_linear(layer, 5)
    assert len(made.looked_up().unique()) <= 5


def test_the_gradient_of_a_centroid_sums_over_its_members():
    layer = CodebookConv2d.from_conv(nn.Conv2d(3, 4, 3), 6).double()
    upstream = drawn(4, 3, 3, 3)
    (gradient,) = torch.autograd.grad(layer.looked_up(), layer.centroids, upstream)
    for one in range(6):
        torch.testing.assert_close(gradient[one], upstream[layer.labels == one].sum())


def test_training_moves_centroids_and_keeps_labels():
    layer = CodebookLinear(6, 5, 4)
    labels = layer.labels.clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.centroids.detach().clone()
    layer(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(layer.centroids, before)
    assert torch.equal(layer.labels, labels)
    assert len(layer.looked_up().unique()) <= 4


def test_bits_of_a_code_book():
    assert codebook_bits(300, 16) == 300 * 4 + 32 * 16
    assert codebook_bits(300, 17) == 300 * 5 + 32 * 17
    assert codebook_bits(300, 1) == 32
    layer = CodebookLinear(20, 15, 16)
    assert stored_bits(layer) == codebook_bits(300, 16) + 32 * 15
    assert stored_bits(layer, 8) == 300 * 4 + 8 * 16 + 8 * 15


def test_huffman_codes():
    counts = torch.tensor([8, 4, 2, 1, 1, 0])
    lengths = huffman_lengths(counts)
    assert lengths.tolist() == [1, 2, 3, 4, 4, 0]
    assert sum(2.0**-n for n in lengths.tolist() if n) == 1  # Kraft: no word is wasted
    labels = torch.repeat_interleave(torch.arange(6), counts)
    assert huffman_bits(labels, 6) == (8 + 8 + 6 + 4 + 4) + 6 * 8 + 6 * 32
    assert huffman_lengths(torch.tensor([0, 5])).tolist() == [0, 1]
    even = torch.arange(16).repeat(10)
    assert huffman_bits(even, 16) == 160 * 4 + 16 * 8 + 16 * 32
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * share.log2()).sum() * counts.sum()
    assert int((counts * lengths).sum()) == pytest.approx(float(entropy))


@pytest.mark.parametrize("bits", [0, 1, 3, 8, 11])
def test_packed_codes_come_back(bits):
    codes = torch.randint(2**bits, (3, 7), generator=torch.Generator().manual_seed(0))
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-21 * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, 21), codes.flatten())


def test_a_packed_network_is_as_small_as_was_counted_and_comes_back(network, images):
    small = to_codebook(network, k=6)
    state = packed_state(small)
    values = [value for name, value in state.items() if not name.startswith("1.")]  # no BatchNorm
    kept = sum(value.numel() * value.element_size() for value in values)
    norm = 32 * sum(one.numel() for one in network[1].parameters())
    assert 0 <= 8 * kept - (stored_bits(small) - norm) < 8 * len(values)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with torch.no_grad():
        for one in network.parameters():
            one.normal_()
    fresh = load_packed(to_codebook(network, k=6), torch.load(file))
    assert torch.equal(fresh(images), small(images))


def test_networks_whose_state_is_not_tensors_alone_are_packed(network, images):
    made = genie.calibrate(genie.quantize(network.eval(), 4, 8, mode="nearest"), images)
    state = packed_state(made)
    assert not all(isinstance(one, torch.Tensor) for one in state.values())
    fresh = genie.quantize(network, 4, 8, mode="nearest")
    assert torch.equal(load_packed(fresh, state)(images), made(images))
