"""The order in memory, and that no training meets oneDNN's faulty weight gradient."""

import copy
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from smallnets import structure
from smallnets.data import Augmentation, Dataset
from smallnets.distill.matching import Matching, match
from smallnets.models import cifar_resnet, convnet, memory_format, sound
from smallnets.models.layout import narrow_strided, without_avx512
from smallnets.prune.importance import all_open, channel_groups, remove
from smallnets.prune.importance.derivatives import parameter_gradients
from smallnets.quantize.layered import to_layered, train_once
from smallnets.training import TrainSettings, fit, seeded

PLAIN = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
ONE_EPOCH = TrainSettings(
    epochs=1, batch_size=8, augmentation=Augmentation(crop=1), device="cpu", precision="32-true"
)


class Watch(TorchDispatchMode):
    """Counts convolutions, and those whose weight gradient would be faulty without AVX-512."""

    def __init__(self):
        super().__init__()
        self.seen, self.faulty = 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten.convolution.default:
            x, weight, _, stride, _, _, _, _, groups = arguments
            last = any(suggests_channels_last(one) for one in (x, weight))
            narrow = weight.dim() == 4 and weight.shape[1] < 8 and weight.shape[2:] == (1, 1)
            self.seen += 1
            self.faulty += last and narrow and groups == 1 and max(stride) > 1
        return function(*arguments, **(keywords or {}))


def suggests_channels_last(tensor):
    return torch._prims_common.suggest_memory_format(tensor) is torch.channels_last


class Functional(nn.Module):
    """A narrow strided convolution that is no module."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 1, 1))
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(F.conv2d(x, self.kernel, stride=2).mean((2, 3)))


def ending(*layers, channels=6):
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))
    return nn.Sequential(*layers, *pooled)


def pruned():
    """A network of eight channels a stage, whose shortcuts pruning has made narrow."""
    network, example = cifar_resnet(8, 4, width=8), torch.randn(2, 3, 8, 8)
    groups = channel_groups(network, example)
    masks = all_open(groups)
    name = next(name for name, group in groups.items() if masks[name].numel() == 8)
    masks[name][:3] = 0
    return remove(network, groups, masks, example)


NETWORKS = {
    "narrow residual": lambda: cifar_resnet(8, 4, width=4),
    "pruned": pruned,
    "functional": Functional,
    "stride in one direction": lambda: ending(nn.Conv2d(3, 6, 1, (1, 2))),
    "transposed": lambda: ending(nn.Conv2d(3, 9, 3), nn.ConvTranspose2d(9, 6, 1, 2)),
    "weight norm": lambda: ending(parametrizations.weight_norm(nn.Conv2d(3, 6, 1, 2))),
    "inside another": lambda: nn.Sequential(nn.Sequential(ending(nn.Conv2d(3, 6, 1, 2)))),
    "scripted": lambda: torch.jit.script(ending(nn.Conv2d(3, 6, 1, 2))),
    "hashed": lambda: structure.to_hashed(cifar_resnet(8, 4, width=4), share=0.5),
    "code book": lambda: structure.to_codebook(cifar_resnet(8, 4, width=4), k=4),
    "lazy": lambda: made(ending(nn.LazyConv2d(6, 1, 2))),
}


def made(network):
    network(torch.zeros(2, 3, 8, 8))
    return network


@pytest.fixture
def data():
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(16) % 4
    return Dataset("noise", images, labels, images, labels, tuple("abcd"), flips=False)


@pytest.fixture
def affected(monkeypatch):
    """Every processor counts as one without AVX-512."""
    monkeypatch.setattr("smallnets.models.layout.without_avx512", lambda: True)


def test_the_watch_sees_the_pattern():
    with Watch() as watch, torch.no_grad():
        F.conv2d(torch.zeros(2, 3, 8, 8).to(memory_format=torch.channels_last),
                 torch.zeros(6, 3, 1, 1), stride=2)  # fmt: skip
    assert (watch.seen, watch.faulty) == (1, 1)


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_training_meets_the_fault(kind, data, affected):
    with seeded(0):
        network = NETWORKS[kind]()
    assert narrow_strided(network), "the example shows nothing"
    with Watch() as watch:
        fit(network, data, ONE_EPOCH, seed=0)
    assert watch.seen > 0
    assert watch.faulty == 0


@pytest.mark.filterwarnings("ignore:.*no BatchNorm")
def test_nor_do_methods_that_draw_views_or_weights_of_their_own(data, affected):
    layered = to_layered(cifar_resnet(8, 4, width=4), (4, 2))
    with Watch() as watch:
        train_once(layered, data, ONE_EPOCH, seed=0)
        teacher = convnet(8, 4)
        match(cifar_resnet(8, 4, width=4), teacher, data, Matching(), ONE_EPOCH, seed=0)
    assert watch.seen > 0
    assert watch.faulty == 0


def test_nor_do_gradients_of_a_network_that_came_in_channels_last(affected):
    network = cifar_resnet(8, 4, width=4).to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 8, 8).to(memory_format=torch.channels_last)
    with Watch() as watch:
        parameter_gradients(network, [(images, torch.arange(8) % 4)])
    assert watch.seen > 0
    assert watch.faulty == 0


def test_values_stay_and_unaffected_networks_keep_their_order(affected):
    wide, narrow = cifar_resnet(8, 4, width=8), cifar_resnet(8, 4, width=4)
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    before = copy.deepcopy(narrow).state_dict()
    assert sound(wide, images) is images
    assert memory_format(wide) is torch.channels_last
    assert sound(narrow, images).is_contiguous()
    assert torch.equal(sound(narrow, images), images)
    for name, weight in narrow.state_dict().items():
        assert torch.equal(weight, before[name])


def test_with_avx512_nothing_changes(monkeypatch):
    monkeypatch.setattr("smallnets.models.layout.without_avx512", lambda: False)
    assert memory_format(cifar_resnet(8, 4, width=4)) is torch.channels_last


@pytest.mark.parametrize(
    ("limit", "without"), [("AVX2", True), ("avx2_vnni", True), ("SSE41", True)]
)
def test_a_limit_of_onednn_counts(limit, without, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert without_avx512() is without
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert without_avx512() is (torch.backends.cpu.get_cpu_capability() != "AVX512")


def test_the_variables_of_the_plain_path_reach_torch_and_onednn():
    """So that a large machine can compute like a plain one: oneDNN says so itself."""
    script = (
        "import torch; print(torch.backends.cpu.get_cpu_capability());"
        "torch.nn.functional.conv2d(torch.zeros(16, 3, 32, 32), torch.zeros(8, 3, 3, 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **PLAIN, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert "AVX2" in lines
    assert [line for line in lines if "cpu,isa:" in line and line.endswith("Intel AVX2")]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_hundred_convolutions_on_the_plain_path(threads):
    """Forward and backward as trained, against contiguous float64, without AVX-512."""
    done = subprocess.run(
        [sys.executable, __file__, str(threads)],
        env={**os.environ, **PLAIN, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "100 convolutions are right"


def random_convolution(draw):
    """(layer, images) of random channels, kernel, stride, groups, padding, dilation and size."""
    kernel = draw.choice([1, 1, 1, 2, 3, 5])
    groups = draw.choice([1, 1, 1, 2, 4])
    width, out = draw.choice([1, 2, 3, 4, 6, 7, 8, 9, 16]), draw.choice([1, 3, 5, 8, 12, 16])
    kind = draw.choice([nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.ConvTranspose2d])
    layer = kind(
        groups * width,
        groups * out,
        kernel,
        draw.choice([1, 2, 2, 3, (1, 2)]),
        padding=draw.choice([0, kernel // 2]),
        groups=groups,
        dilation=draw.choice([1, 1, 1, 2]),
    )
    size = draw.randint(2 * kernel, 20), draw.randint(2 * kernel, 20)
    return layer, torch.randn(draw.choice([1, 4, 16, 33]), groups * width, *size)


def error_of(layer, images):
    """Largest relative difference of output and gradients, as trained, from contiguous float64."""
    found = []
    for network, x in ((copy.deepcopy(layer).double(), images.double()), (layer, images)):
        if x.dtype == torch.float32:
            layout = memory_format(network)
            network.to(memory_format=layout)
            x = x.contiguous(memory_format=layout)
        x = x.requires_grad_()
        output = network(x)
        upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad(
            output, [x, *network.parameters()], upstream.to(output.dtype)
        )
        found.append([output, *gradients])
    pairs = zip(*found, strict=True)
    return max(float((b - a).abs().max() / a.abs().max().clamp(min=1e-3)) for a, b in pairs)


if __name__ == "__main__":
    assert without_avx512()
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    chance = random.Random(0)
    affected_layers = 0
    for _ in range(100):
        one, pictures = random_convolution(chance)
        affected_layers += bool(narrow_strided(one))
        print(
            one, tuple(pictures.shape), flush=True
        )  # the last one printed is the one that crashed
        assert error_of(one, pictures) < 1e-4
    assert affected_layers > 5
    print("100 convolutions are right")
