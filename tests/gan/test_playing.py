"""The loop: batches, rates, pools, checkpoints, losses that are not finite."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets import gan
from smallnets.data.translation import Translation
from smallnets.gan import playing
from smallnets.gan.networks import PatchDiscriminator
from smallnets.gan.playing import batches_of
from smallnets.training import seeded

FAST = gan.GANTraining(epochs=2, decay_epochs=1, batch_size=2, lr=1e-3, device="cpu")


def domains(count=6, paired=True, flips=True, seed=0, side=8):
    draw = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
        for _ in range(2)
    )
    return Translation("noise", a, b, a[:2], b[:2], paired=paired, flips=flips)


def tiny(seed=0, channels=6):
    with seeded(seed):
        generator = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Dropout(0.1), nn.Conv2d(4, 3, 1))
        return generator, PatchDiscriminator(channels, 2, 1)


def state(*networks):
    return torch.cat([p.detach().flatten() for one in networks for p in one.state_dict().values()])


def test_the_linear_policy_falls_to_just_above_zero():
    rates = [gan.linear_policy(epoch, 3, 4) for epoch in range(7)]
    assert rates[:3] == [1, 1, 1]
    assert rates[3:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_halving_and_constant_policies():
    halving = gan.GANTraining(policy="halving", halve_every=10)
    assert [halving.factor(0, step) for step in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    assert gan.GANTraining(policy="constant").factor(199, 10**6) == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"epochs": -1}, "epochs must be"),
        ({"epochs": 0, "decay_epochs": 0}, "epochs and decay_epochs together must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"lr_discriminator": -1.0}, "lr_discriminator must be"),
        ({"betas": (0.5, 1.0)}, "betas must be below 1"),
        ({"betas": (0.5,)}, "betas must be two"),
        ({"betas": 0.5}, "betas must be two"),
        ({"policy": "cosine"}, "policy must be one of"),
        ({"load": 8, "crop": 9}, "crop must be at most load, 8; got 9"),
        ({"device": "tpu"}, "device must be one of"),
    ],
)
def test_bad_settings_are_refused(fields, line):
    with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
        gan.GANTraining(**fields)


def test_pairs_stay_together_and_every_image_is_seen_once():
    data = domains()
    draw = torch.Generator().manual_seed(0)
    seen = []
    for batch in batches_of(data, FAST, 10, draw, torch.device("cpu")):
        for place, which in enumerate(batch.which.tolist()):
            a, b = data.a(data.a_train[which]), data.b(data.b_train[which])
            if batch.mirrored[place]:
                a, b = a.flip(2), b.flip(2)
            assert torch.equal(batch.a[place], a)
            assert torch.equal(batch.b[place], b)
        seen += batch.which.tolist()
        assert batch.step == 9 + len(seen) // 2
    assert sorted(seen) == list(range(6))


def test_unpaired_sets_may_have_other_sizes():
    data = domains(6, paired=False)
    data = replace(data, b_train=data.b_train[:4], aligned=False)
    draw = torch.Generator().manual_seed(0)
    batches = list(batches_of(data, FAST, 0, draw, torch.device("cpu")))
    assert len(batches) == 3
    assert all(batch.b.shape == (2, 3, 8, 8) for batch in batches)


def test_images_are_enlarged_and_cropped_alike():
    data = domains(flips=False)
    same = replace(data, b_train=data.a_train)
    training = replace(FAST, load=12, crop=10)
    draw = torch.Generator().manual_seed(0)
    for batch in batches_of(same, training, 0, draw, torch.device("cpu")):
        assert batch.a.shape == (2, 3, 10, 10)
        assert torch.equal(batch.a, batch.b)
    maps = replace(data, a_train=data.a_train % 2, a_test=data.a_test % 2, one_hot=True)
    large = replace(FAST, load=12)
    for batch in batches_of(maps, large, 0, draw, torch.device("cpu")):
        assert set(batch.a.unique().tolist()) == {0.0, 1.0}
        assert len(batch.b.unique()) > 2
    dark = replace(data, a_train=data.a_train % 2)  # a picture all the same
    for batch in batches_of(dark, large, 0, draw, torch.device("cpu")):
        same = F.interpolate(data.a_train[batch.which] % 2, (12, 12), mode="nearest")
        assert not torch.equal(batch.a, data.a(same))
    with pytest.raises(ValueError, match=r"^crop must be at most the images' sides, 8 and 8; got"):
        next(batches_of(data, replace(FAST, crop=9), 0, draw, torch.device("cpu")))


def test_a_pool_fills_up_and_then_returns_old_images_half_of_the_time():
    pool, draw = gan.ImagePool(5), torch.Generator().manual_seed(0)
    first = torch.arange(5.0).view(5, 1, 1, 1)
    assert torch.equal(pool(first, draw), first)
    new = torch.arange(100.0, 500.0).view(-1, 1, 1, 1)
    out = pool(new, draw)
    kept = (out == new).flatten().float().mean()
    assert 0.4 < float(kept) < 0.6
    assert len(pool.images) == 5
    assert set(out.flatten().tolist()) <= {*first.flatten().tolist(), *new.flatten().tolist()}
    assert torch.equal(gan.ImagePool(0)(new, draw), new)
    with pytest.raises(ValueError, match=r"^size of the pool must be"):
        gan.ImagePool(-1)


def test_the_same_seed_gives_the_same_bits():
    found = []
    for _ in range(2):
        game = gan.Pix2PixTeacher(*tiny())
        found.append((gan.play(game, domains(), FAST, seed=3), state(*game.trained().values())))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    other = gan.Pix2PixTeacher(*tiny())
    assert gan.play(other, domains(), FAST, seed=4) != found[0][0]


class Watched(gan.Pix2PixTeacher):
    """Notes the rates of every step."""

    def step(self, batch, optimizers):
        rates.append([optimizers[name].param_groups[0]["lr"] for name in "GD"])
        return super().step(batch, optimizers)


rates = []


def test_rates_fall_from_epoch_to_epoch_each_from_its_own():
    rates.clear()
    training = gan.GANTraining(
        epochs=1, decay_epochs=1, batch_size=3, lr=1e-3, lr_discriminator=4e-3, device="cpu"
    )
    gan.play(Watched(*tiny()), domains(), training, seed=0)
    assert rates == [[1e-3, 4e-3]] * 2 + [[5e-4, 2e-3]] * 2


class KilledError(Exception):
    pass


def deadly(step):
    """`batches_of`, whose batch of that step never comes."""

    def batches(*arguments):
        for batch in batches_of(*arguments):
            if batch.step == step:
                raise KilledError
            yield batch

    return batches


def cycle(seed=0):
    forth, back = tiny(seed)[0], tiny(seed + 1)[0]
    judges = [tiny(seed + k, 3)[1] for k in (2, 3)]
    return gan.CycleGANTeacher(forth, back, *judges, pool=2)


def test_a_killed_training_goes_on_bit_for_bit_and_a_finished_one_is_read(tmp_path, monkeypatch):
    data = domains(paired=False)
    whole = cycle()
    history = gan.play(whole, data, FAST, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(playing, "batches_of", deadly(7))  # in the third epoch
        with pytest.raises(KilledError):
            gan.play(cycle(), data, FAST, seed=1, cache_dir=tmp_path)
    assert [one.suffix for one in tmp_path.iterdir()] == [".running"]
    resumed = cycle()
    assert gan.play(resumed, data, FAST, seed=1, cache_dir=tmp_path) == history
    assert torch.equal(state(*resumed.trained().values()), state(*whole.trained().values()))
    assert [one.suffix for one in tmp_path.iterdir()] == [".safetensors"]
    monkeypatch.setattr(playing, "batches_of", deadly(0))
    again = cycle()
    assert gan.play(again, data, FAST, seed=1, cache_dir=tmp_path) == history
    assert torch.equal(state(*again.trained().values()), state(*whole.trained().values()))
    assert not again.forth.training


def test_a_damaged_checkpoint_is_dropped_with_a_word(tmp_path, monkeypatch):
    data = domains(paired=False)
    with monkeypatch.context() as patch:
        patch.setattr(playing, "batches_of", deadly(4))
        with pytest.raises(KilledError):
            gan.play(cycle(), data, FAST, seed=1, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="is damaged"):
        assert gan.play(cycle(), data, FAST, seed=1, cache_dir=tmp_path)


def test_global_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    gan.play(gan.Pix2PixTeacher(*tiny()), domains(), FAST, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_stops_and_is_named():
    generator, judge = tiny()
    with torch.no_grad():
        generator[2].bias.fill_(float("nan"))
    before = state(judge)
    with pytest.raises(ValueError, match=r"^every loss term must be finite; D_fake is nan in step"):
        gan.play(gan.Pix2PixTeacher(generator, judge), domains(), FAST, seed=0)
    assert torch.equal(state(judge), before)


def test_more_images_a_step_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"^batch_size must be between 1 and 6; got 7$"):
        gan.play(gan.Pix2PixTeacher(*tiny()), domains(), replace(FAST, batch_size=7), seed=0)


def test_a_monitor_stands_in_the_history():
    calls = []

    def monitor():
        calls.append(1)
        return {"watched": float(len(calls))}

    history = gan.play(gan.Pix2PixTeacher(*tiny()), domains(), FAST, seed=0, monitor=monitor)
    assert [row["watched"] for row in history] == [1, 2, 3]
