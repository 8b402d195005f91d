"""The layered file: bit for bit, in part, cut, corrupt."""

import struct

import pytest
import torch
from torch import nn

from smallnets.models import cifar_resnet
from smallnets.quantize.layered import (
    LayeredFileError,
    WeightRule,
    layered_bytes,
    load_layered,
    read_layout,
    received,
    save_layered,
    to_layered,
    train_once,
)
from smallnets.quantize.layered.activations import LsqActivation
from smallnets.quantize.layered.file import _content
from smallnets.quantize.layered.network import QuantizedLayer
from smallnets.quantize.layered.packing import layer_bytes


def shaped():
    return cifar_resnet(8, 4, 3, width=4)


@pytest.fixture(scope="module", params=["free", "tied", "plain", "per channel", "few"])
def saved(request, data):
    options = {
        "free": {},
        "tied": {"weights": WeightRule(steps="tied", gradient="scaled")},
        "plain": {"weights": WeightRule(rule="plain")},
        "per channel": {"weights": WeightRule(per_channel=True)},
        "few": {"norms": "shared", "activations": False},
    }[request.param]
    widths = (4, 3, 2) if request.param == "few" else (8, 6, 4, 2)
    from smallnets.training import TrainSettings, seeded

    with seeded(0):
        net = to_layered(shaped(), widths, **options)
    quick = TrainSettings(epochs=1, batch_size=16, lr=0.05, device="cpu", precision="32-true")
    train_once(net, data, quick, seed=0)
    return net.eval(), layered_bytes(net)[0]


def test_every_width_is_that_of_the_training_bit_for_bit(saved, data):
    net, content = saved
    x = data.normalise(data.x_test)
    with torch.no_grad():
        for bits in range(net.lowest, net.highest + 1):
            expected = net(x, bits)
            read = load_layered(content, shaped(), bits=bits)
            assert read.highest == bits
            assert torch.equal(read(x), expected), f"{bits} bits"
        whole = load_layered(content, shaped())
        for bits in range(net.lowest, net.highest + 1):
            assert torch.equal(whole(x, bits), net(x, bits)), f"{bits} bits of all"


def test_a_download_works_as_soon_as_its_base_is_there(saved, data):
    net, content = saved
    layout = read_layout(content)
    x = data.normalise(data.x_test[:4])
    for bits, end in layout.end.items():
        for extra in (0, 1) if bits < net.highest else (0,):
            part = content[: end + extra]
            assert received(part, layout) == bits
            read = load_layered(part, shaped())
            assert (read.highest, read.bits) == (bits, bits)
            with torch.no_grad():
                assert torch.equal(read(x), net(x, bits))
    assert received(content[: layout.end[net.lowest] - 1], layout) == 0


def test_sizes_are_those_of_the_formula(saved):
    net, content = saved
    layout = read_layout(content)
    assert layout.size == len(content)
    counts = [layer.layer.weight.numel() for _, layer in net.layers()]
    for section in layout.header["sections"]:
        floats = 4 * sum(torch.Size(shape).numel() for _, shape in section["tensors"])
        bits = net.lowest if section["bits"] == net.lowest else 1
        codes = sum(layer_bytes(count, bits) for count in counts)
        assert section["bytes"] == floats + codes


def test_read_networks_hold_no_float_weights(saved):
    _, content = saved
    read = load_layered(content, shaped(), bits=2)
    for _, layer in read.layers():
        assert layer.layer.weight is None
        assert layer.weights.stored.dtype == torch.int16
        assert layer.weights.stored.unique().numel() <= 4


def test_what_was_read_can_be_written_again(saved, data):
    _, content = saved
    assert layered_bytes(load_layered(content, shaped()))[0] == content


def test_what_a_width_needs_comes_with_its_layer(saved):
    net, content = saved
    layout = read_layout(content)
    sections = {s["bits"]: [key for key, _ in s["tensors"]] for s in layout.header["sections"]}
    if net.widths == (8, 6, 4, 2):
        assert any(".norms.8." in key for key in sections[7])
        assert not any(".norms.8." in key for key in sections[6] + sections[8])
        assert any(".norms.2." in key for key in sections[2])


@pytest.fixture
def content(net, images):
    return layered_bytes(to_layered(net, (4, 2)).start(images))[0]


def broken(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_damage_is_found_and_named(content, tmp_path):
    layout = read_layout(content)
    cases = [
        (b"", {}, "cut inside its first 16 bytes"),
        (content[:9], {}, "cut inside its first 16 bytes"),
        (b"PK" + content, {}, "not a layered file"),
        (content[:20], {}, "cut inside its header, 4 of"),
        (content[:4] + struct.pack("<I", 9) + content[8:], {}, "version must be 1"),
        (broken(content, 20), {}, "header is corrupt"),
        (content[: layout.end[2] - 1], {}, "cut inside the base: "),
        (content[: layout.end[2] + 1], {"bits": 4}, "cut inside layer 3: 1 of"),
        (content[:-1], {"bits": 4}, "cut inside layer 4"),
        (broken(content, layout.begin[2]), {}, "the base is corrupt"),
        (broken(content, layout.begin[3] + 5), {}, "layer 3 is corrupt"),
        (broken(content, layout.size - 1), {}, "layer 4 is corrupt"),
        (content + b"x", {}, "has 1 more"),
    ]
    for data, options, message in cases:
        with pytest.raises(LayeredFileError, match=message) as caught:
            load_layered(data, shaped(), **options)
        assert "\n" not in str(caught.value)
    path = tmp_path / "net.snvl"
    path.write_bytes(broken(content, layout.begin[3] + 5))
    assert load_layered(path, shaped(), bits=2).highest == 2, "what is wanted is whole"


def test_files_on_disk(net, images, tmp_path):
    layered = to_layered(net, (4, 2)).start(images)
    path = tmp_path / "net.snvl"
    layout = save_layered(layered, path)
    assert path.stat().st_size == layout.size
    assert load_layered(path, shaped(), max_bytes=layout.end[3]).highest == 3
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_refused(net, images, content):
    rounded = to_layered(net, (4, 2), weights=WeightRule(rule="round")).start(images)
    with pytest.raises(ValueError, match=r"needs the rule mid or plain; .* has round"):
        layered_bytes(rounded)
    with pytest.raises(ValueError, match="widths from 2 to 4 bits; got 5"):
        load_layered(content, shaped(), bits=5)
    with pytest.raises(ValueError, match=r"does not fit the file: stage1\.0\.conv1 must have"):
        load_layered(content, cifar_resnet(8, 4, 3, width=8))
    with pytest.raises(ValueError, match="does not fit the file: classifier"):
        load_layered(content, cifar_resnet(8, 5, 3, width=4))
    read = load_layered(content, shaped(), bits=3)
    with pytest.raises(ValueError, match=r"one of 2 \(trained\), and 2 to 3 untrained; got 4"):
        read.set_width(4)
    with pytest.raises(ValueError, match="got None"):
        read.set_width(None)
    with pytest.raises(ValueError, match="have no start"):
        layered_bytes(to_layered(net, (4, 2)))


@pytest.mark.parametrize("part", ["weights.step", "inputs.steps.2"])
def test_steps_that_are_no_steps_are_found(net, images, part):
    layered = to_layered(net, (4, 2)).start(images)
    name, _ = layered.layers()[0]
    with torch.no_grad():
        layered.network.get_parameter(f"{name}.{part}").fill_(float("nan"))
    content, _ = layered_bytes(layered)
    with pytest.raises(LayeredFileError, match=f"the steps of {name} must be finite and above 0"):
        load_layered(content, shaped())


def test_no_more_of_a_file_is_read_than_is_wanted(net, images, tmp_path):
    path = tmp_path / "net.snvl"
    layout = save_layered(to_layered(net, (4, 2)).start(images), path)
    for bits in (2, 3, 4):
        assert len(_content(path, bits, None)) == layout.end[bits]
        assert load_layered(path, shaped(), bits=bits).highest == bits
    assert len(_content(path, None, 40)) == 40
    assert len(_content(path, None, None)) == layout.size


@pytest.mark.filterwarnings("ignore:the network has no BatchNorm")
def test_a_layer_at_two_places_is_quantised_at_both_and_stored_once(images):
    torch.manual_seed(0)
    shared = nn.Conv2d(8, 8, 3, padding=1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), shared, nn.ReLU(), nn.Sequential(shared), nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    layered = to_layered(net, (8, 2)).start(images).eval()
    assert layered.network[2] is layered.network[4][0]
    assert isinstance(layered.network[2], QuantizedLayer)
    content, layout = layered_bytes(layered)
    keys = [key for section in layout.header["sections"] for key, _ in section["tensors"]]
    assert not [key for key in keys if key.startswith("4.0.")]
    again = load_layered(content, net)
    for bits in (8, 5, 2):
        assert torch.equal(again(images, bits), layered(images, bits))


@pytest.mark.filterwarnings("ignore:the network has no BatchNorm")
def test_a_layer_that_runs_twice_starts_from_all_that_it_is_given():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x.abs()))

    net, x = Twice().eval(), torch.randn(16, 4)
    inputs = to_layered(net, (8, 4)).start(x).network.layer.inputs
    alone = LsqActivation((8, 4))
    alone.start(torch.cat([x.abs(), net.layer(x.abs())]))
    assert inputs.signed
    assert torch.allclose(inputs.steps["4"], alone.steps["4"])


@pytest.mark.filterwarnings("ignore:the network has no BatchNorm")
def test_a_network_that_reads_its_weights_itself_is_refused():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return nn.functional.linear(x, self.layer.weight)

    with pytest.raises(ValueError, match=r"^the network must call its layers, and not read their"):
        to_layered(Reads(), (8, 4)).start(torch.randn(3, 4))


def test_weights_that_are_no_parameters_are_refused(net):
    nn.utils.parametrizations.weight_norm(net.stage1[0].conv1)
    with pytest.raises(ValueError, match=r"^the weight of layer 'stage1.0.conv1' must be a plain"):
        to_layered(net, (8, 4))
