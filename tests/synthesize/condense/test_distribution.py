"""Learning by distribution matching: what it converges to, its passes, stops and refusals."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets.data import load
from smallnets.synthesize import condense as dm

QUICK = dm.DMSettings(ipc=2, iterations=4, lr=0.1, batch_real=8, precision="32-true", device="cpu")


class RandomMatrix(nn.Module):
    """A linear embedding, drawn anew."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(64, 192) / 8)

    def embed(self, x):
        return x.flatten(1) @ self.matrix.T


@pytest.mark.parametrize("ipc", [1, 3])
def test_a_linear_embedding_moves_the_mean_to_that_of_the_class(real, ipc):
    settings = replace(QUICK, ipc=ipc, iterations=200, lr=0.04 * ipc, strategy=None, batch_real=12)
    start = dm.condense(real, replace(settings, iterations=1, lr=1e-9), embed_factory=RandomMatrix)
    learned = dm.condense(real, settings, embed_factory=RandomMatrix).set
    for label in range(real.num_classes):
        images = learned.images[ipc * label : ipc * (label + 1)]
        expected = real.images[real.labels == label].mean(0)
        assert (images.mean(0) - expected).abs().max() < 0.02
        began = start.set.images[ipc * label : ipc * (label + 1)]
        torch.testing.assert_close(
            images - images.mean(0), began - began.mean(0), rtol=0, atol=1e-4
        )


def test_the_loss_falls_and_labels_are_in_order(real, net):
    settings = replace(QUICK, iterations=40, lr=10.0, strategy=None, batch_real=12)
    result = dm.condense(real, settings, embed_factory=net())
    assert sum(result.losses[-10:]) < 0.9 * sum(result.losses[:10])
    assert result.set.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.set.ipc == 2
    assert result.seconds > 0


@pytest.mark.parametrize("init", ["real", "noise"])
def test_starts(real, net, init):
    settings = replace(QUICK, iterations=1, lr=1e-12, init=init)
    found = dm.condense(real, settings, embed_factory=net()).set
    among = [
        (real.images[real.labels == label] - image).abs().amax((1, 2, 3)).min() < 1e-6
        for image, label in zip(found.images, found.labels.tolist(), strict=True)
    ]
    assert all(among) == any(among) == (init == "real")
    assert not torch.equal(found.images[0], found.images[1])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("strategy", [None, dm.FULL])
def test_passes_give_one_result_without_batch_norm(real, net, joint, strategy):
    settings = replace(QUICK, strategy=strategy)
    usual = dm.condense(real, settings, embed_factory=net())
    other = dm.condense(real, replace(settings, joint=joint), embed_factory=net())
    torch.testing.assert_close(other.set.images, usual.set.images, rtol=1e-4, atol=1e-5)
    assert other.losses == pytest.approx(usual.losses, rel=1e-4)


def test_batch_norm_passes_all_classes_together(real, net):
    factory = net(norm="batch")
    usual = dm.condense(real, QUICK, embed_factory=factory)
    joint = dm.condense(real, replace(QUICK, joint=True), embed_factory=factory)
    apart = dm.condense(real, replace(QUICK, joint=False, lr=0.01), embed_factory=factory)
    assert torch.equal(usual.set.images, joint.set.images)
    assert apart.losses[0] != pytest.approx(joint.losses[0], rel=0.1)


def test_a_class_alone_gets_the_images_that_it_gets_among_others(real, net):
    whole = dm.condense(real, QUICK, seed=3, embed_factory=net()).set
    parts = [dm.condense(real, QUICK, seed=3, embed_factory=net(), only=[c]).set for c in range(4)]
    alone = dm.merged([parts[2], parts[0], parts[3], parts[1]])
    assert torch.equal(alone.labels, whole.labels)
    torch.testing.assert_close(alone.images, whole.images, rtol=1e-4, atol=1e-5)


def test_a_part_of_the_synthetic_images_is_enough(real, net):
    settings = replace(QUICK, ipc=4, batch_syn=1, iterations=1, momentum=0)
    before = dm.condense(real, replace(settings, lr=1e-12), embed_factory=net()).set
    after = dm.condense(real, settings, embed_factory=net()).set
    moved = (after.images - before.images).abs().amax((1, 2, 3)) > 1e-9
    assert moved.view(4, 4).sum(1).tolist() == [1, 1, 1, 1]


def test_a_run_goes_on_bit_for_bit(real, net, tmp_path):
    whole = dm.condense(real, QUICK, seed=1, embed_factory=net())
    half = dm.condense(real, replace(QUICK, iterations=2), seed=1, embed_factory=net())
    half.state.save(tmp_path / "half")
    state = dm.PixelState.load(tmp_path / "half")
    rest = dm.condense(real, QUICK, seed=1, embed_factory=net(), resume=state)
    assert torch.equal(rest.set.images, whole.set.images)
    assert rest.losses == whole.losses
    other = dm.condense(real, QUICK, seed=2, embed_factory=net())
    assert not torch.equal(other.set.images, whole.set.images)


def test_a_killed_run_goes_on_and_a_finished_one_is_kept(real, net, tmp_path):
    whole = dm.condense(real, QUICK, embed_factory=net())

    def stop(iteration, *_):
        if iteration == 3:
            raise KeyboardInterrupt

    keep = {"embed_factory": net(), "cache_dir": tmp_path, "every": 1}
    with pytest.raises(KeyboardInterrupt):
        dm.condense(real, QUICK, callback=stop, **keep)
    assert [file.suffix for file in tmp_path.iterdir()] == [".running"]
    seen = []
    resumed = dm.condense(real, QUICK, callback=lambda i, *_: seen.append(i), **keep)
    assert seen == [3, 4]
    assert torch.equal(resumed.set.images, whole.set.images)
    assert [file.suffix for file in tmp_path.iterdir()] == [".set"]

    def never():
        raise AssertionError

    again = dm.condense(real, QUICK, callback=lambda i, *_: seen.append(i), **keep)
    assert torch.equal(again.set.images, whole.set.images)
    assert seen == [3, 4, 4]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:500])
    with pytest.warns(UserWarning, match="is no state of a condensation.*condensing again"):
        made = dm.condense(real, QUICK, **keep)
    assert torch.equal(made.set.images, whole.set.images)


def test_watching_sees_the_set_before_updates_and_costs_no_seconds(real, net):
    seen = {}
    result = dm.condense(
        real, QUICK, embed_factory=net(), every=2, callback=lambda i, s, t: seen.update({i: s})
    )
    assert list(seen) == [0, 2, 4]
    assert torch.equal(seen[4].images, result.set.images)
    start = dm.condense(real, replace(QUICK, lr=1e-12), embed_factory=net()).set
    torch.testing.assert_close(seen[0].images, start.images)


def test_networks_are_fresh_pooled_or_by_accuracy(real, net):
    calls = []

    def counting():
        calls.append(float(torch.rand(())))
        return net()()

    dm.condense(real, QUICK, embed_factory=counting)
    assert len(set(calls[1:])) == QUICK.iterations  # the first is looked at, not matched with
    bands = dm.AccuracyBands()
    for accuracy in (0.05, 0.15, 0.35):
        bands.add(net()(), accuracy)
    pool = bands.between(0.1, 0.4)
    assert len(pool.networks) == 2
    fixed = dm.condense(real, QUICK, embed_factory=dm.Pool([bands.networks[0]])).losses
    with torch.no_grad():
        bands.networks[0].features[0].weight.add_(1)
    assert dm.condense(real, QUICK, embed_factory=dm.Pool([bands.networks[0]])).losses != fixed
    with pytest.raises(ValueError, match=r"no network has an accuracy from 0.5 to 0.6; seen: 0.05"):
        bands.between(0.5, 0.6)
    with pytest.raises(ValueError, match="at least one network"):
        dm.Pool([])
    with pytest.raises(ValueError, match="equally many; got 0 and 1"):
        dm.AccuracyBands([], [0.5])


def test_a_dataset_of_the_library_is_condensed_as_it_is(net):
    digits = load("digits", train=300)
    result = dm.condense(
        digits, replace(QUICK, strategy=dm.DIGITS), embed_factory=net(10, 1, (16, 16))
    )
    assert result.set.images.shape == (20, 1, 16, 16)
    assert torch.equal(result.set.mean, digits.mean)
    assert result.set.classes == digits.class_names


def test_global_random_numbers_are_left_alone(real, net):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dm.condense(real, QUICK, embed_factory=net())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ipc": 0}, "ipc must be at least 1; got 0"),
        ({"ipc": 1.5}, "ipc must be a whole number"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"lr": 0}, "lr must be greater than 0; got 0"),
        ({"lr": -1.0}, "lr must be greater than 0"),
        ({"momentum": 2}, "momentum must be between"),
        ({"batch_real": 0}, "batch_real must be at least 1; got 0"),
        ({"batch_syn": 3}, "batch_syn must be between 1 and 2"),
        ({"init": "mean"}, "init must be one of real, noise"),
        ({"strategy": "color_blur"}, "every family of strategy must be one of"),
        ({"joint": "yes"}, "joint must be True, False or None"),
        ({"joint": 1}, "joint must be True, False or None"),
        ({"precision": "half"}, "precision must be one of"),
        ({"device": "tpu"}, "device must be one of"),
    ],
)
def test_settings_out_of_range(changed, words):
    with pytest.raises(ValueError, match=words) as caught:
        replace(QUICK, **changed)
    assert "\n" not in str(caught.value)


def test_data_and_networks_that_do_not_fit_are_refused_in_one_line(real, net, made):
    lacking = dm.image_set(real.images[12:], real.labels[12:])
    for call, words in (
        (lambda: dm.condense(real, replace(QUICK, ipc=13)), "at least 13 images; class 0 has 12"),
        (lambda: dm.condense(lacking, QUICK), "at least 1 images; class 0 has 0"),
        (lambda: dm.condense("glyphs", QUICK), "data must be a Dataset or an ImageSet"),
        (lambda: dm.condense(real, QUICK, seed=-1), "seed must be at least 0"),
        (lambda: dm.condense(real, QUICK, only=[]), "only must name different classes"),
        (lambda: dm.condense(real, QUICK, only=[4]), "class must be between 0 and 3; got 4"),
        (lambda: dm.condense(real, QUICK, every=0), "every must be at least 1"),
        (lambda: dm.condense(made(size=(4, 4)), QUICK), "depth must be at most 2 for images of"),
        (
            lambda: dm.condense(real, QUICK, embed_factory=net(channels=1)),
            "does not take images of shape",
        ),
        (
            lambda: dm.condense(real, QUICK, embed_factory=lambda: nn.Linear(2, 2)),
            "must have a method embed",
        ),
        (
            lambda: dm.condense(
                real, replace(QUICK, lr=1e30, iterations=9), embed_factory=net(norm="none")
            ),
            r"must stay finite; got nan or inf in iteration \d+ with lr 1e\+30",
        ),
        (
            lambda: dm.condense(
                real, replace(QUICK, ipc=1), embed_factory=net(norm="batch"), only=[1]
            ),
            "batch norm needs at least 2 images",
        ),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match="batch_real 256 is more than the 12 images"):
        dm.condense(real, replace(QUICK, batch_real=256, iterations=1), embed_factory=net())


def test_another_run_is_not_gone_on_with(real, net, made, tmp_path):
    state = dm.condense(real, replace(QUICK, iterations=2), embed_factory=net()).state
    for data, settings, seed, words in (
        (real, replace(QUICK, lr=0.2), 0, "lr was 0.1 and is 0.2"),
        (real, replace(QUICK, strategy=None), 0, "strategy was color_crop"),
        (real, QUICK, 1, "seed was 0 and is 1"),
        (made(seed=1), QUICK, 0, "data was"),
        (real, replace(QUICK, iterations=1), 0, "iterations must be at least 2"),
    ):
        with pytest.raises(ValueError, match=words):
            dm.condense(data, settings, seed=seed, embed_factory=net(), resume=state)
    with pytest.raises(FileNotFoundError, match="no state"):
        dm.PixelState.load(tmp_path / "nothing")
