"""The loop against a dozen lines of plain torch, and what its random numbers depend on."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.data import Augmentation
from smallnets.models import convnet
from smallnets.training import TrainSettings, fit, learning_rate, new_optimizer, seeded
from smallnets.training.loop import order_of_images


def plainly_trained(model, dataset, settings, seed):
    """What `fit` promises, written down once more."""
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator().manual_seed(1_000_003 * (seed + 1))
    optimizer = torch.optim.SGD(
        model.parameters(),
        settings.lr,
        settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    model.train()
    history = []
    for epoch in range(settings.epochs):
        times, batches = order_of_images(len(dataset.y_train), settings, epoch, order)
        losses = []
        for time, chosen in zip(times, batches, strict=True):
            images = dataset.normalise(dataset.x_train[chosen])
            logits = model(settings.augmentation(images, noise))
            loss = F.cross_entropy(logits, dataset.y_train[chosen])
            model.zero_grad()
            loss.backward()
            if settings.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.param_groups[0]["lr"] = learning_rate(settings, time)
            optimizer.step()
            losses.append(loss.item())
        history.append({"loss": pytest.approx(sum(losses) / len(losses), rel=1e-4)})
    return history


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": False, "momentum": 0.5, "weight_decay": 0.1},
        {"warmup_epochs": 0.5, "schedule": "step", "milestones": (1,), "clip": 0.1},
        {"across_epochs": True, "batch_size": 40, "final_lr": 0.05},
    ],
)
def test_the_loop_is_the_plain_one(tiny, settings, changes):
    settings = replace(
        settings, epochs=2, lr=0.2, augmentation=Augmentation(crop=1, flip=True), **changes
    )
    with seeded(0):
        ours = convnet(4, 4, norm="batch").eval()  # as it comes from another training
    with seeded(0):
        plain = convnet(4, 4, norm="batch")
    expected = plainly_trained(plain, tiny, settings, seed=3)
    assert fit(ours, tiny, settings, seed=3) == expected
    for (name, one), other in zip(
        ours.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)


def shown(dataset, settings, seed):
    """Images and places of every batch of a training."""
    seen = []

    def objective(model, batch):
        assert all(module.training for module in model.modules())
        seen.append((batch.images.clone(), batch.which.clone()))
        return {"loss": F.cross_entropy(model(batch.images), batch.labels)}

    with seeded(0):
        model = convnet(2, 4, norm="batch").eval()
    fit(model, dataset, settings, seed=seed, objective=objective)
    return tuple(torch.cat(parts) for parts in zip(*seen, strict=True))


@pytest.fixture
def alike(tiny):
    """The data set with one image, again and again: what differs is the view."""
    return replace(tiny, x_train=tiny.x_train[:1].expand_as(tiny.x_train).contiguous())


@pytest.mark.parametrize(
    "view", [Augmentation(crop=2), Augmentation(crop=0, flip=True), Augmentation(crop=0, cutout=3)]
)
def test_views_depend_on_the_seed_of_a_training(alike, settings, view):
    settings = replace(settings, epochs=2, augmentation=view)
    first, again, other = (shown(alike, settings, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(*first.chunk(2)), "every epoch has views of its own"
    assert len({image.numpy().tobytes() for image in first}) > 1


def test_the_order_of_images_depends_on_the_seed_and_the_epoch(tiny, settings):
    for across in (False, True):
        settings = replace(settings, epochs=2, across_epochs=across)
        first, again, other = (shown(tiny, settings, seed)[1] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert not torch.equal(*first.chunk(2))


def test_an_arithmetic_is_part_of_what_a_training_is(
    tiny, settings, new_model, tmp_path, monkeypatch
):
    """The same settings are another training on a machine with another arithmetic."""
    automatic = replace(settings, epochs=1, precision="auto")
    weights = []
    for has_it in (False, True):
        monkeypatch.setattr(
            "smallnets.training.settings.has_fast_bfloat16", lambda _, has_it=has_it: has_it
        )
        model = new_model()
        fit(model, tiny, automatic, seed=0, cache_dir=tmp_path)
        weights.append(next(model.parameters()).clone())
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert not torch.equal(*weights)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_every_parameter_has_the_settings_numbers(name):
    settings = TrainSettings(lr=0.3, momentum=0.7, weight_decay=0.02, optimizer=name)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    (group,) = new_optimizer(model, settings).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.7, True)
        still = replace(settings, momentum=0.0)
        assert new_optimizer(model, still).param_groups[0]["nesterov"] is False


@pytest.mark.parametrize("name", ["adamw", "shampoo"])
def test_norms_and_biases_do_not_decay(name):
    settings = TrainSettings(lr=0.1, weight_decay=0.02, optimizer=name)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decays = {
        id(p): group["weight_decay"]
        for group in new_optimizer(model, settings).param_groups
        for p in group["params"]
    }
    assert [decays[id(p)] for p in model.parameters()] == pytest.approx([0.2, 0, 0, 0])
