"""Files read back: sizes as torch counts them, times in turns."""

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import numpy_helper
from torch import nn

from smallnets import measure
from smallnets.deploy import onnx_runtime, packed
from smallnets.deploy.exporting import export_checked
from smallnets.deploy.files import input_shape
from smallnets.deploy.int8 import POLICY, export_int8
from smallnets.deploy.reading import file_layers, measure_onnx, measure_side_by_side
from smallnets.deploy.whole_numbers import export_whole_numbers
from smallnets.measure.layers import layer_sizes
from smallnets.models import cifar_resnet
from smallnets.quantize import genie
from smallnets.quantize import modules as q
from smallnets.quantize.integer import to_integer
from smallnets.structure import small_by_design
from smallnets.surgery import recalibrate
from smallnets.training import seeded

SHAPE = (3, 16, 16)
X = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
QUICK = {"batches": (1, 3), "threads": (1,), "warm_up": 1, "rounds": 2}


@pytest.fixture(scope="module")
def network():
    with seeded(0):
        return recalibrate(cifar_resnet(8, 5, width=4).eval(), [X])  # no two biases alike


@pytest.fixture(scope="module")
def file(network):
    return onnx_runtime.export(network, SHAPE)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)

    def forward(self, x):
        x = self.patches(x)
        rows = x.flatten(2).transpose(1, 2)
        rows = torch.softmax(rows @ rows.transpose(1, 2), -1) @ rows
        return self.head(rows).mean(1) + self.up(x).mean((1, 2, 3))[:, None]


def test_multiply_adds_and_parameters_are_those_of_torch(network, file):
    layers = file_layers(file)
    assert sum(one.macs for one in layers) == measure.macs(network, SHAPE)
    folded = q.fold_batch_norm(network)
    assert sum(one.parameters for one in layers) == measure.parameters(folded)
    first, wanted = layers[0], layer_sizes(network, SHAPE)[0]
    assert (first.macs, first.inputs, first.outputs) == (
        wanted.macs, wanted.inputs, wanted.outputs,
    )  # fmt: skip
    assert (first.weight_bits, first.input_bits) == (32, 32)
    assert input_shape(file) == SHAPE


@pytest.mark.parametrize(
    "make",
    [Attention, lambda: torchvision.models.mobilenet_v3_small(weights=None, num_classes=7)],
)
def test_other_networks_count_alike(make):
    with seeded(0):
        network = make().eval()
    shape = (3, 32, 32)
    layers = file_layers(onnx_runtime.export(network, shape))
    assert sum(one.macs for one in layers) == measure.macs(network, shape)
    parameters = measure.parameters(network)
    assert 0.95 * parameters < sum(one.parameters for one in layers) <= parameters


@pytest.mark.parametrize("block", ["shuffle", "grouped"])
def test_shapes_that_a_file_computes_are_found(block):
    with seeded(0):
        network = small_by_design(block, 4, 3).eval()
    found = file_layers(export_checked(network, SHAPE))
    assert sum(one.macs for one in found) == measure.macs(network, SHAPE)
    assert all(one.inputs and one.outputs for one in found if one.kind == "Conv")


def test_shapes_of_a_file_that_does_not_answer_are_said_to_be_missing():
    chain = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 4)), nn.Linear(4, 2), nn.Flatten())
    file = onnx.load_from_string(onnx_runtime.export(chain, (32,)))
    (cut,) = (one for one in file.graph.initializer if one.name == "2.bias")
    cut.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), cut.name))
    with pytest.raises(ValueError, match=r"the sizes of .* cannot be told from the file") as error:
        file_layers(file.SerializeToString())
    assert "\n" not in str(error.value)


def test_packed_weights_are_read_unpacked(network, file):
    dense = sum(one.parameters for one in file_layers(file))
    for one in (packed.with_int8_weights(file), packed.with_codebook(file, 4)):
        found = measure_onnx(one, batches=())
        assert found.bytes == len(one) < len(file)
        assert (found.parameters, found.macs) == (dense, measure.macs(network, SHAPE))
        assert found.bit_operations == 1024 * found.macs


def test_integers_count_alike_and_have_eight_bits(network):
    made = genie.quantize(
        network, 8, 8, mode="nearest", symmetric=True, fold=True, policy=POLICY, ratios=1
    )
    with_integers = export_int8(genie.calibrate(made, X), SHAPE)
    layers = file_layers(with_integers)
    assert sum(one.macs for one in layers) == measure.macs(network, SHAPE)
    products = [one for one in layers if one.macs]
    assert {(one.weight_bits, one.input_bits) for one in products} == {(8, 8)}
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(4, 5))  # fmt: skip
    whole = to_integer(
        q.quantize_after_training(chain, X, weights="symmetric", activations="affine"), X
    )
    found = measure_onnx(export_whole_numbers(whole, SHAPE), batches=())
    assert found.macs == measure.macs(chain, SHAPE)
    assert found.bit_operations == 64 * found.macs


def test_one_table_for_files_and_networks(network, file, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(file)
    found = measure_side_by_side(
        {"file": path, "exported": export_checked(network, SHAPE), "torch": network},
        SHAPE,
        **QUICK,
    )
    rows = [one.row for one in found.values()]
    assert [row["runtime"] for row in rows] == ["onnxruntime", "onnxruntime", "torch"]
    assert {tuple(row) for row in rows} == {
        ("network", "runtime", "parameters", "macs", "bit operations", "bytes",
         "ms, batch 1, 1 thread", "ms, batch 3, 1 thread")
    }  # fmt: skip
    assert len({row["macs"] for row in rows}) == 1
    assert rows[0]["bytes"] == len(file)
    assert rows[2]["parameters"] == measure.parameters(network)
    assert all(0 < one.low <= one.median <= one.high
               for row in found.values() for one in row.latency.values())  # fmt: skip
    alone = measure_onnx(path, **QUICK)
    assert alone.name == "net"
    assert alone.latency[3, 1].runs == 2
    half = q.quantize_model(network, "lsq", None, weight_bits=4)
    assert (
        measure_side_by_side({"n": half}, SHAPE, batches=())["n"].bit_operations
        < 1024 * rows[2]["macs"]
    )


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda f, n: {"n": b"nothing"}, {}, "the file must be a whole ONNX model"),
        (lambda f, n: {"n": "/no/such/file.onnx"}, {}, r"/no/such/file.onnx cannot be read"),
        (lambda f, n: {"n": 3}, {}, "a file must be a path, bytes or Exported; got int"),
        (lambda f, n: {"n": n}, {}, "input_shape must be given for networks in torch; got None"),
        (lambda f, n: {"n": f, "m": n}, {"input_shape": (3, 8, 8)}, "must take one shape; n takes"),
        (lambda f, n: {}, {}, "networks must name at least one"),
        (lambda f, n: {"n": f}, {"batches": (0,)}, "every one of batches must be at least 1"),
        (lambda f, n: {"n": f}, {"threads": ()}, "threads must hold at least one number"),
        (lambda f, n: {"n": f}, {"rounds": 0}, "rounds must be at least 1; got 0"),
        (lambda f, n: {"n": f}, {"warm_up": True}, "warm_up must be a whole number"),
    ],
)
def test_what_cannot_be_measured(network, file, make, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        measure_side_by_side(make(file, network), **{**QUICK, **settings})
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:You are using the legacy")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_of_one_batch_size(tmp_path):
    path = tmp_path / "one.onnx"
    torch.onnx.export(nn.Linear(3, 2), (torch.zeros(1, 3),), path, dynamo=False)
    with pytest.raises(ValueError, match=r"one must take a batch of 3; it fails with") as error:
        measure_onnx(path, **QUICK)
    assert "\n" not in str(error.value)
