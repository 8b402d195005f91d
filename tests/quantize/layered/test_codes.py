"""Integers and bytes: laws, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.quantize.layered import (
    LayeredTensor,
    bit_planes,
    cascade,
    offset,
    pack_layered,
    rebuild,
)
from smallnets.quantize.layered.codes import check_widths, levels
from smallnets.quantize.layered.packing import pack_base, unpack_base


@st.composite
def coded(draw):
    high = draw(st.integers(1, 16))
    low = draw(st.integers(1, high))
    shape = draw(st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 3, 3)]))
    seed = draw(st.integers(0, 999))
    codes = np.random.default_rng(seed).integers(-(2 ** (high - 1)), 2 ** (high - 1), shape)
    flat = codes.reshape(-1)
    flat[0] = draw(st.sampled_from([-(2 ** (high - 1)), 2 ** (high - 1) - 1, 0, -1]))
    return torch.from_numpy(flat.reshape(shape)), high, low


@given(coded())
def test_rebuild_undoes_the_cascade(case):
    codes, high, low = case
    widths = cascade(codes, high, low)
    base, planes = bit_planes(codes, high, low)
    for bits, expected in widths.items():
        assert torch.equal(expected, codes >> (high - bits))
        assert int(expected.min()) >= -(2 ** (bits - 1))
        assert int(expected.max()) < 2 ** (bits - 1)
        assert torch.equal(rebuild(base, planes, low, bits).long(), expected.long())


@given(coded())
def test_bytes_give_the_codes_back(case):
    codes, high, low = case
    packed = pack_layered(codes, high, low)
    count = codes.numel()
    assert len(packed.base) == -(-low * count // 8)
    assert all(len(plane) == -(-count // 8) for plane in packed.planes.values())
    for bits, expected in cascade(codes, high, low).items():
        assert torch.equal(packed.codes(bits).long(), expected.long())
        assert packed.nbytes(bits) == len(packed.base) + (bits - low) * -(-count // 8)


@given(coded())
def test_a_width_needs_only_its_own_layers(case):
    codes, high, low = case
    packed = pack_layered(codes, high, low)
    for bits in range(low, high + 1):
        cut = {b: p for b, p in packed.planes.items() if b <= bits}
        part = LayeredTensor(packed.base, cut, packed.shape, high, low)
        assert torch.equal(part.codes(bits), packed.codes(bits))
        if bits < high:
            with pytest.raises(ValueError, match=f"plane {bits + 1} is missing"):
                part.codes(high)


@pytest.mark.parametrize(("high", "bits"), [(8, 2), (8, 5), (4, 1), (3, 3)])
def test_the_middle_is_the_mean_of_the_codes_with_the_prefix(high, bits):
    codes = torch.arange(-(2 ** (high - 1)), 2 ** (high - 1))
    cut = codes >> (high - bits)
    for one in cut.unique():
        mean = codes[cut == one].double().mean()
        value = (float(one) + offset(high, bits)) * 2 ** (high - bits)
        assert value == pytest.approx(float(mean), abs=1e-12)
    assert offset(high, bits, "plain") == 0


def test_a_chain_of_roundings_is_not_one_rounding():
    code = torch.tensor(-5.0)
    chained = code
    for _ in range(3):
        chained = torch.round(chained / 2)
    assert float(chained) == 0
    assert float(torch.round(code / 8)) == -1
    every = torch.arange(-128, 128).double()
    half_up = every
    for _ in range(3):
        half_up = torch.floor(half_up / 2 + 0.5)
    assert torch.equal(half_up, torch.ceil(every / 8))


def test_division_towards_zero_is_another_thing():
    codes = torch.tensor([-3, -1, 1, 3])
    assert cascade(codes, 3, 2)[2].tolist() == [-2, -1, 0, 1]
    assert torch.div(codes, 2, rounding_mode="trunc").tolist() != [-2, -1, 0, 1]
    assert levels(codes.double(), 1, "plain").tolist() == [-2, -1, 0, 1]


def test_base_codes_keep_their_sign():
    codes = torch.tensor([-2, 1, -1])
    assert pack_base(codes, 2) == bytes([0b10011100])
    assert unpack_base(pack_base(codes, 2), 3, 2).tolist() == [-2, 1, -1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cascade(torch.ones(2), 4, 2), "signed integers; got torch.float32"),
        (lambda: cascade(torch.ones(2, dtype=torch.uint8), 4, 2), "got torch.uint8"),
        (lambda: cascade(torch.tensor([8]), 4, 2), "between -8 and 7; got 8 to 8"),
        (lambda: cascade(torch.tensor([1]), 17, 2), "high must be between 1 and 16; got 17"),
        (lambda: cascade(torch.tensor([1]), 4, 0), "low must be at least 1; got 0"),
        (lambda: cascade(torch.tensor([1]), 4, 5), "low must be between 1 and 4; got 5"),
        (lambda: offset(8, 4, "top"), "rule must be one of"),
        (lambda: rebuild(torch.tensor([1]), {}, 2, 3), "plane 3 is missing"),
        (
            lambda: rebuild(torch.tensor([1]), {3: torch.tensor([[1]])}, 2, 3),
            r"shape \(1,\); got \(1, 1\)",
        ),
        (lambda: rebuild(torch.tensor([1]), {3: torch.tensor([2])}, 2, 3), "zeros and ones"),
        (lambda: pack_layered(torch.tensor([1, 2]), 4, 2).codes(5), "between 2 and 4; got 5"),
        (lambda: LayeredTensor(b"", {}, (9,), 2, 2).codes(2), "basic layer must have 3 bytes"),
        (lambda: LayeredTensor(b"000", {3: b""}, (9,), 3, 2).codes(3), "plane must have 2 bytes"),
        (lambda: check_widths(()), "at least one bit width"),
        (lambda: check_widths((4, 4)), "must differ"),
        (lambda: check_widths((0,)), "at least 1; got 0"),
        (lambda: check_widths((20, 4)), "between 1 and 16; got 20"),
        (lambda: check_widths((4.0,)), "whole number"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
