"""Packed weights: the same numbers in fewer bytes, and the same speed."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from smallnets.deploy import onnx_runtime, packed
from smallnets.training import seeded

SHAPE = (3, 8, 8)
X = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 40), nn.Unflatten(1, (4, 10)), nn.Linear(10, 30),
        ).eval()  # fmt: skip


def exported(change=lambda weight: None):
    made = network()
    with torch.no_grad():
        for layer in made:
            if hasattr(layer, "weight"):
                change(layer.weight)
    return onnx_runtime.export(made, SHAPE)


def of_zeros(weight):
    weight[weight.abs() < weight.abs().quantile(0.8)] = 0


def of_values(count):
    return lambda weight: weight.copy_((weight * count * 6).round().clamp(0, count - 1) / count)


def answers(file):
    return onnx_runtime.predict(onnx_runtime.load(file), X)


def weights(file):
    graph = onnx.load_from_string(file).graph
    arrays = [numpy_helper.to_array(one) for one in graph.initializer]
    return sorted((one for one in arrays if one.size >= packed.FEWEST), key=lambda one: one.size)


def operations(file):
    return sorted(node.op_type for node in onnx.load_from_string(file).graph.node)


@pytest.mark.parametrize(
    ("change", "bits", "operation"),
    [
        (of_zeros, 1 + 32 * 0.2, "CumSum"),
        (of_values(2), 1, "Gather"),
        (of_values(4), 2, "Gather"),
        (of_values(13), 4, "Gather"),
        (of_values(200), 8, "Gather"),
    ],
)
def test_packing_loses_nothing_but_bytes(change, bits, operation):
    file = exported(change)
    small = packed.pack(file)
    saved = sum(one.size for one in weights(file)[1:]) * (32 - bits) / 8
    assert len(file) - len(small) > 0.8 * saved - 3000
    assert operation in operations(small)
    assert torch.equal(answers(small), answers(file))
    again = packed.unpack(small)
    for one, other in zip(weights(again), weights(file), strict=True):
        assert np.array_equal(one, other)
    assert operations(again) == operations(file)
    assert packed.unpack(again) == again


def test_dense_weights_stay_as_they_are():
    file = exported()
    assert operations(packed.pack(file)) == operations(file)
    assert len(packed.pack(file)) <= len(file)


def test_eight_bits_have_a_step_a_channel():
    file = exported(lambda weight: weight[0].mul_(100))
    small = packed.with_int8_weights(file)
    assert len(small) < 0.4 * len(file)
    for one, other in zip(weights(packed.unpack(small)), weights(file), strict=True):
        axis = 1 if one.shape == (10, 30) else 0  # a matrix product reads it transposed
        if one.shape[axis] in (16, 32, 40):
            largest = np.abs(other).max(axis=tuple(i for i in range(one.ndim) if i != axis))
            shape = [-1 if i == axis else 1 for i in range(one.ndim)]
            step = (largest / 127).reshape(shape)
            assert (np.abs(one - other) <= step * 0.501).all()
    assert operations(packed.unpack(small)) == operations(file)


def test_a_code_book_has_k_values():
    file = exported()
    small = packed.with_codebook(file, 16)
    assert len(small) < 0.3 * len(file)
    found = weights(packed.unpack(small))
    assert [len(np.unique(one)) for one in found] == [16] * len(found)
    errors = [
        np.square(weights(packed.unpack(packed.with_codebook(file, k)))[-1] - weights(file)[-1])
        for k in (4, 64)
    ]
    assert errors[0].mean() > 20 * errors[1].mean()


@pytest.mark.parametrize(
    "make",
    [
        lambda: packed.pack(exported(of_zeros)),
        lambda: packed.with_codebook(exported(), 16),
        lambda: packed.with_int8_weights(exported()),
    ],
    ids=["bitmap", "book", "steps"],
)
def test_the_runtime_unpacks_once_as_it_opens_the_file(make, tmp_path):
    opened = []
    for number, file in enumerate((make(), exported())):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{number}.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        opened.append(operations((tmp_path / f"{number}.onnx").read_bytes()))
    assert opened[0] == opened[1]


def test_files_that_cannot_be_packed_are_refused():
    with pytest.raises(ValueError, match="whole ONNX model"):
        packed.pack(b"no model")
    for k in (1, 257, 2.5, True):
        with pytest.raises(ValueError, match="k must be"):
            packed.with_codebook(exported(), k)
    tiny = onnx_runtime.export(nn.Sequential(nn.Linear(3, 4)), (3,))
    for change in (packed.with_int8_weights, lambda file: packed.with_codebook(file, 4)):
        with pytest.raises(ValueError, match="weights of at least 256 numbers"):
            change(tiny)
    assert packed.unpack(packed.pack(tiny)) == packed.pack(tiny)
