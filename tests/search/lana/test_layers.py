import copy

import pytest
import torch
from torch import nn

from smallnets.search.lana import ReplaceableLayers, Shape, build_pool
from smallnets.training import seeded


class Forked(nn.Module):
    """A network that is no sequence: a shortcut runs past its two layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleDict(
            {"a": nn.Conv2d(8, 8, 3, padding=1), "b": nn.Conv2d(8, 8, 3, 2, 1)}
        )
        self.side = nn.Conv2d(8, 8, 1, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.body["b"](self.body["a"](x).tanh()) + self.side(x)
        return self.head(y.mean(dim=(2, 3)))


@pytest.fixture
def forked():
    with seeded(0):
        return ReplaceableLayers(Forked().eval(), ("body.a", "body.b"), torch.rand(2, 3, 9, 7))


def test_a_network_of_ones_own_needs_only_names(forked):
    assert forked.shapes == [Shape(8, 8, 1, 9, 7), Shape(8, 8, 2, 9, 7)]
    with seeded(1):
        pool = build_pool(forked, ("skip", "ir_e2_k3", "mhsa4"))
    assert pool.names == [("teacher", "skip", "ir_e2_k3", "mhsa4"), ("teacher", "skip", "ir_e2_k3")]
    student = pool.stitched(forked, (3, 2))
    assert isinstance(student.body["b"], type(pool.rows[1][1]))
    assert student(torch.rand(4, 3, 9, 7)).shape == (4, 5)


def test_features_are_inputs_and_outputs_of_the_layers(layered):
    x = torch.randn(3, 1, 8, 8)
    seen = layered.passed(x)
    network = layered.network
    stem = network.relu(network.norm(network.conv(x)))
    assert torch.equal(seen.inputs[0], stem)
    assert torch.equal(seen.outputs[0], network.stage1(stem))
    assert torch.equal(seen.inputs[1], seen.outputs[0])
    assert torch.equal(seen.logits, network(x))
    assert not any(m._forward_hooks for m in network.modules())


def test_what_lies_behind_the_last_layer_asked_for_does_not_run(layered):
    x, ran = torch.randn(3, 1, 8, 8), []
    whole = layered.passed(x)
    later = layered.layers[2].register_forward_hook(lambda *_: ran.append("later"))
    seen = layered.passed_until(x, 1)
    later.remove()
    assert [len(seen), ran] == [2, []]
    for (given, made), *wanted in zip(seen, whole.inputs, whole.outputs, strict=False):
        assert torch.equal(given, wanted[0])
        assert torch.equal(made, wanted[1])
    assert not any(m._forward_hooks for m in layered.network.modules())


def test_only_teacher_layers_give_the_teacher_bit_for_bit(layered, pool):
    x = torch.randn(5, 1, 8, 8)
    student = pool.stitched(layered, (0, 0, 0)).eval()
    assert torch.equal(student(x), layered.network(x))


def test_students_own_everything(layered, pool, snapshot):
    before, kept = snapshot(layered.network), snapshot(pool)
    student = pool.stitched(layered, (1, 0, 2))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in layered.network.state_dict().items())
    assert all(torch.equal(v, kept[k]) for k, v in pool.state_dict().items())


def test_replaced_layers_come_back_even_after_an_error(layered):
    before = layered.layers
    with pytest.raises(RuntimeError), layered.replaced({0: nn.Conv2d(99, 4, 1)}) as network:
        network(torch.rand(1, 1, 8, 8))
    assert all(a is b for a, b in zip(layered.layers, before, strict=True))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "layers must be among conv, .*; got none"),
        (("stage9",), "layers must be among conv, .*; got 'stage9'"),
        (("stage1", "stage1"), "layers must differ; got stage1, stage1"),
        (("stage2", "stage1"), "layers must be named as they run, stage1, stage2"),
    ],
)
def test_wrong_names_are_refused(layered, names, message):
    with pytest.raises(ValueError, match=message):
        ReplaceableLayers(layered.network, names, layered.example)


def test_layers_must_run_once_on_one_tensor():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Bilinear(3, 3, 3)

        def forward(self, x):
            return self.b(self.a(self.a(x)), x)

    with pytest.raises(
        ValueError, match="layer a must run once in a forward pass; it runs 2 times"
    ):
        ReplaceableLayers(Twice(), ("a",), torch.rand(2, 3))
    with pytest.raises(ValueError, match="layer b must take one tensor and return one"):
        ReplaceableLayers(Twice(), ("b",), torch.rand(2, 3))


def test_in_place_activations_are_refused():
    layers = [nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)]
    network = nn.Sequential(*layers)
    with pytest.raises(ValueError, match=r"overwrites what layer 1 takes or gives in place: set"):
        ReplaceableLayers(network, ("0", "1"), torch.rand(2, 3))
    calm = copy.deepcopy(network)
    calm[2].inplace = False
    assert len(ReplaceableLayers(calm, ("0", "1"), torch.rand(2, 3)).layers) == 2
    with pytest.raises(ValueError, match="overwrites its input in place"):
        ReplaceableLayers(nn.Sequential(nn.ReLU(inplace=True), *calm), ("1",), torch.rand(2, 3))


def test_layers_that_do_not_map_images_have_no_operations():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"layer 0 must map \(channels, height, width\)"):
        _ = ReplaceableLayers(network, ("0",), torch.rand(2, 3)).shapes
    bigger = nn.Sequential(nn.ConvTranspose2d(1, 1, 2, 2), nn.Flatten())
    with pytest.raises(ValueError, match=r"it maps \(1, 4, 4\) to \(1, 8, 8\)"):
        _ = ReplaceableLayers(bigger, ("0",), torch.rand(2, 1, 4, 4)).shapes
