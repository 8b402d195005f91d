import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smallnets.measure import weight_bytes
from smallnets.prune.sparse import (
    FORMS,
    Masked,
    bitmap_bytes,
    dense_bytes,
    gap_bytes,
    index_bytes,
    magnitude_masks,
    stored_bytes,
)
from smallnets.prune.sparse.storage import bits_of_bitmap, bits_of_gaps


def test_bytes_by_hand():
    weight = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 2.0, 3.0]])
    assert dense_bytes(weight) == 48
    assert bitmap_bytes(weight) == 14  # 12 bits and three numbers
    assert index_bytes(weight) == 14  # three numbers, each with a place of 4 bits
    assert gap_bytes(weight, gap_bits=2) == 22  # gaps 2, 9, 1: two zeros more
    assert gap_bytes(weight, bits=8, gap_bits=4) == 5
    assert gap_bytes(torch.zeros(5)) == bitmap_bytes(torch.zeros(5)) - 1 == 0


def test_distances_take_as_many_bits_as_are_fewest():
    w = torch.tensor([0, 0, 5.0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2])
    assert bits_of_bitmap(w, 8) == 15 + 4 * 8
    assert bits_of_gaps(w, 8, 4) == 4 * 12
    assert bits_of_gaps(w, 8, 3) == 5 * 11  # nine places apart: one zero more
    assert bits_of_gaps(w, 8, 1) == (4 + 1 + 4) * 9
    assert bits_of_gaps(w, 8) == min(bits_of_gaps(w, 8, bits) for bits in range(1, 17)) == 48
    assert bits_of_gaps(torch.tensor([0.0, 3]), 32) == 33


@given(st.integers(0, 99), st.floats(0, 1), st.integers(1, 5))
def test_gaps_are_as_many_as_can_be_read_back(seed, share, gap_bits):
    noise = torch.Generator().manual_seed(seed)
    weight = torch.rand(60, generator=noise) * (torch.rand(60, generator=noise) < share)
    places = weight.nonzero().flatten().tolist()
    last, pairs = -1, []
    for place in places:
        while place - last > 2**gap_bits:
            last += 2**gap_bits
            pairs.append((2**gap_bits, 0.0))
        pairs.append((place - last, float(weight[place])))
        last = place
    read, place = torch.zeros(60), -1
    for gap, value in pairs:
        place += gap
        read[place] = value
    assert torch.equal(read, weight)
    assert gap_bytes(weight, 16, gap_bits) == -(-len(pairs) * (16 + gap_bits) // 8)


@pytest.mark.parametrize("count", [1, 7, 8, 60])
def test_the_bitmap_is_numpys(count):
    weight = torch.arange(count) % 3
    bitmap = np.packbits((weight != 0).numpy())
    assert bitmap_bytes(weight) == bitmap.nbytes + 4 * int((weight != 0).sum())


def test_a_whole_network(network):
    dense = stored_bytes(network, "dense")
    buffers = sum(one.numel() * one.element_size() for one in network.buffers())
    assert dense == weight_bytes(network) + buffers
    masked = Masked(network, magnitude_masks(network, 0.9))
    sizes = {form: stored_bytes(masked, form) for form in FORMS}
    assert sizes == {form: stored_bytes(masked.plain(), form) for form in FORMS}
    assert sizes["dense"] == dense
    assert max(sizes["bitmap"], sizes["index"], sizes["gaps"]) < dense
    assert stored_bytes(network, "bitmap") > dense  # without zeros it does not pay
    assert stored_bytes(masked, "bitmap", 8) < sizes["bitmap"]
    part = stored_bytes(masked.plain(), layers=["conv1"])
    assert sizes["bitmap"] < part < dense


REFUSED = {
    "form": (lambda: stored_bytes(nn.Linear(2, 2), "csr"), "form must be one of dense, bitmap"),
    "bits": (lambda: dense_bytes(torch.ones(2), 0), "bits must be at least 1; got 0"),
    "half bits": (lambda: bitmap_bytes(torch.ones(2), 4.5), "bits must be a whole number"),
    "true bits": (lambda: index_bytes(torch.ones(2), True), "bits must be a whole number"),
    "gap bits": (lambda: gap_bytes(torch.ones(2), gap_bits=0), "gap_bits must be at least 1"),
    "wide gaps": (lambda: gap_bytes(torch.ones(2), gap_bits=33), "between 1 and 32; got 33"),
    "nothing": (lambda: stored_bytes(nn.ReLU()), "ReLU has none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function()
