"""Checked exports: the answers, the tolerance, and what is refused."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from smallnets.deploy import onnx_runtime
from smallnets.deploy.exporting import TOLERANCES, export_checked
from smallnets.deploy.int8 import POLICY
from smallnets.deploy.whole_numbers import export_whole_numbers
from smallnets.models import cifar_resnet
from smallnets.quantize import genie
from smallnets.quantize import modules as q
from smallnets.quantize.integer import to_integer
from smallnets.surgery import recalibrate
from smallnets.training import seeded

SHAPE = (3, 12, 12)
X = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    with seeded(0):
        return recalibrate(cifar_resnet(8, 5, width=8).eval(), [X])


def chain():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding="same", groups=4), nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(8, 12, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5),
        ).eval()  # fmt: skip


def small_by_design():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.Hardswish(),
            nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 8, 1), nn.PReLU(8),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 2, bias=False), nn.Linear(2, 5),
        )  # fmt: skip


def pruned():
    network = chain()
    for name in ("0", "2"):
        prune.l1_unstructured(network.get_submodule(name), "weight", 0.5)
    return network


@pytest.mark.parametrize("make", [chain, small_by_design, pruned])
def test_networks_of_every_kind_answer_the_same(make, tmp_path):
    network = make().train()
    found = export_checked(network, SHAPE, tmp_path / "n" / "net.onnx", examples=X)
    assert network.training
    assert found.kind == "float"
    assert 0 <= found.difference <= found.tolerance == TOLERANCES["float"]
    assert found.batches == (1, 2, 15)
    assert found.path.read_bytes() == found.file
    assert found.file_bytes == len(found.file)
    session = onnx_runtime.load(found.file)
    assert onnx_runtime.difference(network, session, X) < 1e-4


@pytest.mark.parametrize("acts", ["affine", "xnor", "sign"])
def test_quantisers_become_plain_operations(resnet, acts):
    bits = None if acts in ("xnor", "sign") else 6
    network = q.quantize_model(resnet, "ttq", acts, activation_bits=bits)
    q.calibrate(network.eval(), X)
    loader = DataLoader(TensorDataset(X, torch.zeros(12)), 4)
    found = export_checked(network, SHAPE, examples=loader)
    assert found.kind == "rounded"
    assert found.batches == (1, 2, 7)


def test_integers_of_chapter_nine(resnet):
    made = genie.quantize(
        resnet, 8, 8, mode="nearest", symmetric=True, fold=True, policy=POLICY, ratios=1
    )
    found = export_checked(genie.calibrate(made, X), SHAPE, examples=X)
    assert found.kind == "int8"
    assert found.difference < 0.05
    assert found.file_bytes < 0.6 * export_checked(resnet, SHAPE).file_bytes


def test_a_network_of_torchvision():
    with seeded(0):
        network = torchvision.models.mobilenet_v3_small(weights=None, num_classes=5).eval()
    x = torch.rand(2, 3, 32, 32)
    made = q.quantize_after_training(network, x, weights="symmetric", fold=True)
    assert len(q.widths(made)) == 54
    assert export_checked(made, (3, 32, 32), examples=x).difference < 0.05


KINDS = {"8 bits": ("symmetric", "affine", 8, 8), "4 bits": ("lsq", "lsq", 4, 4)}


@pytest.mark.parametrize("slower", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_runtime_integers_are_within_one_step_of_whole_numbers(kind, slower, monkeypatch):
    if slower:  # as on processors without VNNI instructions
        monkeypatch.setattr(onnx_runtime, "cuts_sums_off", lambda: True)
    weights, acts, *bits = KINDS[kind]
    network = q.quantize_after_training(chain(), X, *bits, weights=weights, activations=acts)
    integer = to_integer(network, X)
    session = onnx_runtime.load(export_whole_numbers(integer, SHAPE))
    step = float(integer.layers[-1].taken.scale)
    got = onnx_runtime.predict(session, X)
    apart = (got - integer(X)).abs() / step
    assert float(apart.max()) < 1.01
    assert float((apart > 0.5).float().mean()) < 0.1
    if kind == "8 bits":
        assert float((got - network(X)).detach().abs().max()) < 1.51 * step
    assert export_checked(integer, SHAPE, examples=X).kind == "int8"


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) + torch.zeros(x.shape[0], 4).cumsum(0)[0] * x.shape[0]


class Branching(Fixed):
    def forward(self, x):
        return self.linear(x) if len(x) == 1 else 2 * self.linear(x)


class Complex(Fixed):
    def forward(self, x):
        return torch.linalg.eigvals(self.linear(x)[:, :, None] * torch.ones(4)).real


class Two(Fixed):
    def forward(self, x):
        return self.linear(x), x


class Random(Fixed):
    def forward(self, x):
        return self.linear(x) + torch.rand(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Branching, r"logits|as the network does"),
        (Complex, r"^the network cannot be exported: .*linalg_eigvals.* is not supported"),
        (Two, r"."),
        (Random, r"it is off by|must give the network's logits"),
        (lambda: Fixed().half(), r"must have float32 weights to be exported; got torch.float16"),
        (
            lambda: nn.Linear(7, 3),
            r"^the network cannot be exported: .*shapes cannot be multiplied",
        ),
        (lambda: "net.onnx", r"network must be an nn.Module; got str"),
    ],
)
def test_refused_exports_say_why_in_one_line(make, message, capsys):
    with pytest.raises(ValueError, match=message) as error:
        export_checked(make(), (4,))
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_a_tolerance_that_is_not_kept(resnet, tmp_path):
    with pytest.raises(ValueError, match=r"to 1e-12 of the largest output; it is off by"):
        export_checked(resnet, SHAPE, tmp_path / "net.onnx", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="tolerance must be greater than 0; got 0"):
        export_checked(resnet, SHAPE, tolerance=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        export_checked(resnet, SHAPE, tmp_path / "file" / "net.onnx")
    with pytest.raises(ValueError, match=r"examples must have the shape \(n, 3, 12, 12\); got"):
        export_checked(resnet, SHAPE, examples=X[:, :, :4])
    with pytest.raises(ValueError, match="every side of input_shape must be at least 1; got 0"):
        export_checked(resnet, (3, 0, 8))
    broken = cifar_resnet(8, 5, width=4)
    nn.init.constant_(broken.classifier.bias, torch.nan)
    with pytest.raises(ValueError, match="logits must be finite"):
        export_checked(broken, SHAPE)


def test_whole_numbers_that_do_not_fit():
    network = q.quantize_after_training(chain(), X, weights="affine", activations="affine")
    with pytest.raises(ValueError, match=r"weights of layer '0' must be from -128 to 127 less"):
        export_whole_numbers(to_integer(network, X), SHAPE)
    network = q.quantize_after_training(chain(), X, weights="symmetric", activations="affine")
    with pytest.raises(ValueError, match="outputs must have at most 8 bits to be exported"):
        export_whole_numbers(to_integer(network, X, 12), SHAPE)
