"""Making images: every method, its switches, resuming, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets.models.upsampled import is_channels_last
from smallnets.quantize.genie.statistics import matching_loss
from smallnets.quantize.genie.synthesis import (
    METHODS,
    SynthesisSettings,
    _number,
    corner_energy,
    fast_copy,
    roughness,
    shorter,
    synthesize,
)

FEW = SynthesisSettings(iterations=25, batch_size=16, latent_dim=16, widths=(8, 8))
SHAPE = (3, 16, 16)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(resnet, method):
    before = {k: v.clone() for k, v in resnet.state_dict().items()}
    made = synthesize(resnet, 20, SHAPE, method, settings=FEW)
    assert made.images.shape == (20, *SHAPE)
    assert made.method == method
    assert not made.images.requires_grad
    again = synthesize(resnet, 20, SHAPE, method, settings=FEW)
    assert torch.equal(made.images, again.images)
    other = synthesize(resnet, 20, SHAPE, method, settings=FEW, seed=1)
    assert not torch.allclose(made.images, other.images)
    assert all(torch.equal(v, before[k]) for k, v in resnet.state_dict().items())
    assert all(p.requires_grad for p in resnet.parameters())
    expected = {"noise": 0, "gba": 1}.get(method, 2)
    assert [len(one) for one in made.losses] == [25] * expected
    if method != "noise":
        assert made.losses[0][-1] < 0.9 * made.losses[0][0]


def test_matching_images_match(resnet):
    long = SynthesisSettings(iterations=80, batch_size=32, latent_dim=16, widths=(8, 8))
    noise = matching_loss(resnet, synthesize(resnet, 32, SHAPE, "noise").images)
    made = synthesize(resnet, 32, SHAPE, settings=long, swing=False)
    assert matching_loss(resnet, made.images) < noise / 2
    assert made.losses[0][-1] < 0.5 * made.losses[0][0]


def test_a_killed_run_goes_on(resnet, tmp_path, monkeypatch):
    from smallnets.quantize.genie import synthesis

    calls = []
    original = synthesis.optimise

    def dies_at_the_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(synthesis, "optimise", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        synthesize(resnet, 32, SHAPE, settings=FEW, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("images-*.npz"))) == 1
    resumed = synthesize(resnet, 32, SHAPE, settings=FEW, cache_dir=tmp_path)
    assert len(calls) == 3
    monkeypatch.undo()
    whole = synthesize(resnet, 32, SHAPE, settings=FEW)
    assert torch.equal(resumed.images, whole.images)
    assert resumed.losses == whole.losses


@pytest.mark.parametrize("method", ["genie", "gba"])
def test_what_is_kept_comes_back_with_its_time(resnet, tmp_path, method):
    first = synthesize(resnet, 32, SHAPE, method, settings=FEW, cache_dir=tmp_path)
    again = synthesize(resnet, 32, SHAPE, method, settings=FEW, cache_dir=tmp_path)
    assert torch.equal(first.images, again.images)
    assert (first.losses, first.seconds) == (again.losses, again.seconds)
    assert first.seconds > 0


def test_what_decides_images_decides_the_name_under_which_they_are_kept(resnet, tmp_path):
    brief = replace(FEW, iterations=1)
    plain = {"model": resnet, "n_images": 16, "image_shape": SHAPE, "settings": brief, "seed": 0}
    other = copy.deepcopy(resnet)
    other.conv.weight.data[0] += 1
    changes = (
        {},
        {"swing": False},
        {"method": "pixels"},
        {"seed": 1},
        {"settings": replace(brief, jitter=brief.jitter + 1)},
        {"image_shape": (3, 16, 12)},
        {"model": other},
        {"method": "gba"},
        {"method": "gba", "n_images": 32},
    )
    for count, change in enumerate(changes, start=1):
        for _ in range(2):
            synthesize(**(plain | change), cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == count, change


def test_no_two_things_are_drawn_from_one_seed():
    numbers = {
        (seed, batch, what): _number(seed, batch, what)
        for seed in range(3)
        for batch in range(5)
        for what in range(3)
    }
    assert len(set(numbers.values())) == len(numbers)


def test_ablations(resnet):
    def made(**changes):
        settings = SynthesisSettings(25, 16, latent_dim=16, widths=(8, 8), **changes)
        return synthesize(resnet, 32, SHAPE, settings=settings, swing=False)

    both = made()
    frozen = [made(train_latents=False), made(train_generator=False)]
    assert all(one.losses[0][-1] > both.losses[0][-1] for one in frozen)
    shared = made(one_generator=True)
    assert torch.equal(shared.images[:16], both.images[:16])  # the first generator is the same
    assert not torch.allclose(shared.images[16:], both.images[16:])
    assert shared.losses[1][0] < both.losses[1][0]  # the second batch finds a trained generator
    with pytest.raises(ValueError, match="train_latents or train_generator must be on"):
        made(train_latents=False, train_generator=False)


def test_swing_changes_images(resnet):
    plain = synthesize(resnet, 16, SHAPE, settings=FEW, swing=False)
    swung = synthesize(resnet, 16, SHAPE, settings=FEW)
    assert not torch.allclose(plain.images, swung.images)


class Viewing(nn.Module):
    """Flattens its maps with a view, which only contiguous memory allows."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6 * 64, 4)

    def forward(self, x):
        return self.classifier(self.norm(self.conv(x)).relu().view(len(x), -1))


def test_order_in_memory(resnet):
    """The frozen copy is in the faster order where it works, and images never are: what is done
    with them later may compute weight gradients, see `smallnets.models.layout`.
    """
    viewing = Viewing()
    viewing(torch.randn(32, *SHAPE))
    viewing.eval()
    for network, last in ((resnet, True), (viewing, False)):
        copied = fast_copy(network, torch.zeros(2, *SHAPE))
        convolution = next(m for m in copied.modules() if isinstance(m, nn.Conv2d))
        assert is_channels_last(convolution.weight) is last
        assert not any(p.requires_grad for p in copied.parameters())
        assert all(p.is_contiguous() and p.requires_grad for p in network.parameters())
        for method in ("genie", "gba", "pixels"):
            made = synthesize(network, 20, SHAPE, method, settings=replace(FEW, iterations=2))
            assert made.images.is_contiguous()


def test_what_pictures_look_like():
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    board = board.expand(2, 3, 16, 16)
    smooth = torch.linspace(-1, 1, 16).expand(2, 3, 16, 16)
    assert corner_energy(board) == pytest.approx(1)
    assert corner_energy(smooth) < 1e-6
    assert roughness(board) > 5 * roughness(smooth)


def test_shorter_keeps_the_shape():
    short = shorter(SynthesisSettings(), 400)
    assert (short.iterations, short.patience, short.decay_every) == (400, 10, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1; got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"lr_latent": 0.0}, "lr_latent must be greater than 0"),
        ({"reduction": "max"}, "reduction must be one of"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        SynthesisSettings(**changes)


def test_what_is_refused(resnet):
    with pytest.raises(ValueError, match="gba trains its generator; got train_generator=False"):
        synthesize(resnet, 16, SHAPE, "gba", settings=replace(FEW, train_generator=False))
    with pytest.raises(ValueError, match=r"method must be one of genie, gba.*got 'gan'"):
        synthesize(resnet, 8, SHAPE, "gan")
    with pytest.raises(ValueError, match="n_images must be at least 1; got 0"):
        synthesize(resnet, 0, SHAPE)
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\)"):
        synthesize(resnet, 8, (16, 16))
    with pytest.raises(ValueError, match="image size must be multiples of 4"):
        synthesize(resnet, 8, (3, 18, 18), settings=FEW)
    with pytest.raises(ValueError, match=r"does not take images of shape \(1, 16, 16\)"):
        synthesize(resnet, 8, (1, 16, 16), settings=FEW)
    with pytest.raises(ValueError, match=r"evaluation mode; call eval\(\) first"):
        synthesize(resnet.train(), 8, SHAPE)
    with pytest.raises(ValueError, match="must have BatchNorm layers"):
        synthesize(nn.Conv2d(3, 3, 1).eval(), 8, SHAPE)
