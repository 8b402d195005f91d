"""Generators and their training from a classifier alone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets.synthesize import replay as r
from smallnets.synthesize.replay.dreaming import DreamingWeights

SIZE = 8
SHAPE = (3, SIZE, SIZE)
GENERATOR = r.GeneratorSettings(
    latent=16, widths=(16, 16, 8), epochs=2, steps=10, batch=32, pairs=8, device="cpu"
)


@pytest.mark.parametrize(
    ("make", "count", "side"),
    [
        (r.generator_32, 8_423_939, 32),
        (r.generator_128, 5_084_035, 128),
        (r.generator_256, 5_084_995, 224),
    ],
)
def test_published_generators(make, count, side):
    generator = make().train()
    assert sum(p.numel() for p in generator.parameters()) == count
    assert generator(torch.randn(2, 1000)).shape == (2, 3, side, side)
    eps = [m.eps for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert eps[0] == eps[-1] == 1e-5
    assert set(eps[1:-1]) == {0.8}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 45), (2, 5, 3)])
def test_small_generator_makes_any_size(shape):
    images = r.small_generator(shape)(torch.randn(6, 128))
    assert images.shape == (6, *shape)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(shape[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        images.var((0, 2, 3), unbiased=False), torch.ones(shape[0]), rtol=0, atol=1e-2
    )


def test_images_are_the_same_in_both_memory_formats():
    generator = r.small_generator((3, 8, 8)).train()
    latents = torch.randn(4, 128)
    expected = generator(latents)
    found = generator.to(memory_format=torch.channels_last)(latents)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


WEIGHTS = {
    "all": r.GeneratorWeights(diversity=0.1),
    "published": r.GeneratorWeights(),
    "bn alone": r.GeneratorWeights(0, 0, 0, 0, 20, 0),
    "no bn": r.GeneratorWeights(bn=0),
    "dreaming": DreamingWeights(),
}
EXPECTED = {
    "all": {"one_hot", "balance", "activation", "variation", "bn", "diversity"},
    "published": {"one_hot", "balance", "activation", "variation", "bn"},
    "bn alone": {"bn"},
    "no bn": {"one_hot", "balance", "activation", "variation"},
    "dreaming": {"content", "balance", "bn", "smooth"},
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_training_with_every_set_of_weights(known, name):
    before = {k: v.clone() for k, v in known.state_dict().items()}
    settings = replace(GENERATOR, weights=WEIGHTS[name])
    made = r.train_generator(known, SHAPE, settings, seed=3)
    assert len(made.history) == settings.epochs
    assert set(made.history[0]) == {"loss", *EXPECTED[name]}
    assert made.history[-1]["loss"] < made.history[0]["loss"]
    assert made.n_old == 2
    assert made.class_histogram.sum() == 512
    assert float(made.mean_probabilities.sum()) == pytest.approx(1, abs=1e-5)
    assert 0.5 <= made.confidence <= 1
    assert made.generator.training
    assert (made.bn_distance > 0) == settings.needs_bn
    assert all(torch.equal(v, before[k]) for k, v in known.state_dict().items())
    assert all(p.requires_grad for p in known.parameters())


@pytest.mark.parametrize("space", ["pixels", "logits", "features"])
def test_diversity_in_every_space_counts(known, space):
    weights = r.GeneratorWeights(one_hot=0, balance=0, activation=0, variation=0, bn=0, diversity=1)
    settings = replace(GENERATOR, weights=weights, space=space)
    made = r.train_generator(known, SHAPE, settings)
    assert made.history[-1]["diversity"] < made.history[0]["diversity"] < 0


def test_the_same_seed_makes_the_same_generator_and_another_another(known, tmp_path):
    made = [r.train_generator(known, SHAPE, GENERATOR, seed=s) for s in (0, 0, 1)]
    first, again, other = (one.generator.linear.weight for one in made)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_killed_training_goes_on_bit_for_bit(known, tmp_path, monkeypatch):
    expected = r.train_generator(known, SHAPE, GENERATOR)
    original, calls = r.GeneratorObjective.terms, []

    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == GENERATOR.steps + 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(r.GeneratorObjective, "terms", dies)
        with pytest.raises(KeyboardInterrupt):
            r.train_generator(known, SHAPE, GENERATOR, cache_dir=tmp_path)
    assert list(tmp_path.glob("*.running"))
    found = r.train_generator(known, SHAPE, GENERATOR, cache_dir=tmp_path)
    assert found.history == expected.history
    for mine, other in zip(
        found.generator.parameters(), expected.generator.parameters(), strict=True
    ):
        assert torch.equal(mine, other)
    kept = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    r.train_generator(known, SHAPE, GENERATOR, cache_dir=tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == kept


def test_generating_leaves_the_generator_as_it_is(known):
    generator = r.train_generator(known, SHAPE, GENERATOR).generator
    before = copy.deepcopy(generator.state_dict())
    modes = [m.training for m in generator.modules()]
    noise = torch.Generator().manual_seed(0)
    by_batch = r.generate(generator, 8, noise)
    by_running = r.generate(generator, 8, noise.manual_seed(0), mode="running")
    assert not torch.allclose(by_batch, by_running)
    assert not by_batch.requires_grad
    torch.testing.assert_close(by_batch.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert [m.training for m in generator.modules()] == modes
    assert all(m.track_running_stats for m in generator.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_generator_of_ones_own(known):
    own = nn.Sequential(nn.Linear(16, 3 * SIZE * SIZE), nn.Unflatten(1, SHAPE)).train()
    made = r.train_generator(known, SHAPE, GENERATOR, generator=own)
    assert made.generator is own


def test_spread_within_classes():
    images = torch.tensor([0.0, 2.0, 5.0, 5.0, 9.0]).view(5, 1, 1, 1)
    classes = torch.tensor([0, 0, 1, 1, 2])
    assert r.class_spread(images, classes) == pytest.approx(2**0.5 / 2)
    assert r.class_spread(images[-1:], classes[-1:]) != r.class_spread(images, classes)


class NoNorm(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: r.generator_32((3, 30, 32)), "multiples of 4; got 30x32"),
        (lambda m: r.generator_32((3, 32)), r"\(channels, height, width\); got \(3, 32\)"),
        (lambda m: r.ReplayGenerator(SHAPE, widths=(8,)), "two numbers or more"),
        (lambda m: r.ReplayGenerator(SHAPE, latent=0), "latent must be at least 1"),
        (lambda m: r.train_generator(NoNorm(), SHAPE, GENERATOR), "must have BatchNorm layers"),
        (lambda m: r.train_generator(m, SHAPE, GENERATOR, n_old=0), "n_old must be at least 1"),
        (
            lambda m: r.train_generator(m, SHAPE, GENERATOR, n_old=3),
            "n_old must be between 1 and 2",
        ),
        (lambda m: r.train_generator(m, (3, 6, 8), GENERATOR), "multiples of 4; got 6x8"),
        (lambda m: r.train_generator(m, (1, 8, 8), GENERATOR), "classifier does not take images"),
        (lambda m: replace(GENERATOR, batch=1), "batch must be at least 2; got 1"),
        (lambda m: r.GeneratorWeights(bn=-1), "bn must be at least 0; got -1"),
        (
            lambda m: replace(GENERATOR, weights=r.GeneratorWeights(diversity=1), pairs=17),
            "at most half of the batch, 16 of 32; got 17",
        ),
        (
            lambda m: r.train_generator(
                m, SHAPE, replace(GENERATOR, weights=r.GeneratorWeights(0, 0, 0, 0, 0, 0))
            ),
            "at least one weight of a generator must be above 0",
        ),
        (lambda m: replace(GENERATOR, space="frequencies"), "space must be one of pixels, logits"),
        (
            lambda m: r.generate(r.small_generator(SHAPE), 1, torch.Generator()),
            "count of generated images must be at least 2; got 1",
        ),
        (
            lambda m: r.generate(r.small_generator(SHAPE), 4, torch.Generator(), mode="eval"),
            "mode must be one of batch, running",
        ),
    ],
)
def test_refused(known, call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call(known)


def test_a_classifier_that_says_nan_is_refused_while_it_trains(known):
    broken = copy.deepcopy(known)
    broken.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="classifier must say finite numbers"):
        r.train_generator(broken, SHAPE, GENERATOR)
