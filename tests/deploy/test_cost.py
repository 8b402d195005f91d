"""Costs on paper: closed forms."""

from functools import partial

import pytest
import torch
from torch import nn

from smallnets import measure, structure
from smallnets.deploy.cost import cost, storage_bits
from smallnets.models import cifar_resnet
from smallnets.prune.sparse.storage import bits_of_bitmap, bits_of_gaps
from smallnets.quantize import modules as q
from smallnets.training import seeded


def tiny():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 16, 5),
        ).eval()  # fmt: skip


SHAPE = (3, 4, 4)
CONV, LINEAR = 16 * 3 * 4 * 9, 320


def test_a_dense_network():
    found = cost(tiny(), SHAPE)
    assert found.macs == found.nonzero_macs == CONV + LINEAR
    assert found.bit_operations == 1024 * (CONV + LINEAR)
    assert found.parameters == measure.parameters(tiny())
    assert found.bytes == 4 * found.parameters
    assert found.activation_peak == 2 * 64  # BatchNorm's
    assert found.activation_bits == 32 * 128
    network = cifar_resnet(8, 5, width=4)
    assert cost(network, (3, 16, 16)).macs == measure.macs(network, (3, 16, 16))


def test_quantised_layers_say_their_widths_and_their_steps():
    kinds = {"weight_bits": 4, "activation_bits": 3, "skip": ()}
    per_filter = q.quantize_model(tiny(), lambda bits: q.LSQWeight(bits, True), "lsq", **kinds)
    q.calibrate(per_filter, torch.rand(2, *SHAPE))
    found = cost(per_filter, SHAPE, storage="dense")
    assert found.bit_operations == 12 * (CONV + LINEAR)
    numbers = 4 * (108 + 320) + 32 * (4 + 5)  # codes, and a step a filter
    assert found.weight_bits == numbers + 32 * (4 + 5 + 8)  # biases, and BatchNorm
    assert found.parameters == measure.parameters(tiny())
    ternary = q.quantize_model(tiny(), "twn", None, skip=())
    few = cost(ternary, SHAPE)
    assert few.bit_operations == 64 * (CONV + LINEAR)
    zeros = sum(int((one.values == 0).sum()) for one in q.weight_codes(ternary).values())
    assert few.nonzero_macs < few.macs
    assert few.parameters - few.nonzero >= zeros > 0


def test_widths_that_are_given():
    found = cost(tiny(), SHAPE, bits={"0": (2, 8), "4": (8, 8)})
    assert found.bit_operations == 16 * CONV + 64 * LINEAR
    assert found.weight_bits == 2 * 108 + 8 * 320 + 32 * 17


def test_zeros_are_not_stored_and_not_multiplied():
    network = tiny()
    with torch.no_grad():
        network[4].weight.flatten()[: 320 - 32] = 0
    found = cost(network, SHAPE)
    assert found.nonzero_macs == CONV + 32
    assert found.macs == CONV + LINEAR
    assert cost(network, SHAPE, storage="dense").bytes == 4 * found.parameters
    assert cost(network, SHAPE, storage="bitmap").weight_bits - found.weight_bits >= 0
    saved = cost(network, SHAPE, storage="dense").weight_bits - found.weight_bits
    assert saved >= 32 * 320 - (320 + 32 * 32)


def test_ways_to_store_zeros():
    w = torch.tensor([0, 0, 5.0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2])
    assert storage_bits(w, 8, "dense") == 15 * 8
    assert storage_bits(w, 8, "bitmap") == bits_of_bitmap(w, 8) == 15 + 4 * 8
    fewest = min(bits_of_gaps(w, 8, bits) for bits in range(1, 17))
    assert storage_bits(w, 8, "gaps") == bits_of_gaps(w, 8) == fewest
    assert storage_bits(w, 8) == min(15 * 8, 15 + 4 * 8, fewest)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (partial(structure.to_codebook, k=6), "centroids"),
        (partial(structure.to_hashed, share=0.1), "values"),
    ],
)
def test_shared_weights_say_what_stands_for_them(make, numbers):
    made = make(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)))
    found = cost(made, SHAPE)
    assert found.weight_bits == structure.stored_bits(made) < 32 * (216 + 160)
    assert found.parameters == measure.parameters(made)
    assert found.nonzero_macs == found.macs == 4 * 216 + 160
    narrow = cost(made, SHAPE, bits={"0": (8, 8)})
    assert found.weight_bits - narrow.weight_bits == 24 * getattr(made[0], numbers).numel()
    with torch.no_grad():
        for one in made[3].parameters():
            one.zero_()
    assert cost(made, SHAPE).nonzero_macs == 4 * 216


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cost(tiny(), (3, 5, 5)), "input_shape must be one that the network takes"),
        (lambda: cost(tiny(), SHAPE, storage="zip"), "storage must be one of dense, bitmap, gaps"),
        (lambda: cost(tiny(), SHAPE, bits={"7": (2, 2)}), r"bits must name layers .*; got '7'"),
        (lambda: cost(tiny(), SHAPE, bits={"0": 2}), "bits of layer '0' must be two widths; got 2"),
        (lambda: cost(tiny(), SHAPE, bits={"0": (0, 2)}), "bits of layer '0' must be at least 1"),
        (lambda: storage_bits(torch.ones(3), 0), "bits must be at least 1; got 0"),
        (lambda: storage_bits(torch.ones(3), storage="csr"), "storage must be one of dense"),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
