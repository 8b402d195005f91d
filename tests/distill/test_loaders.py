"""Distillation with networks and batches of one's own."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets import measure
from smallnets.data import Augmentation, Batches, Dataset
from smallnets.distill import fidelity, matching, similarity
from smallnets.models import convnet
from smallnets.training import TrainSettings, seeded
from smallnets.training.checkpoint import weights_digest
from smallnets.training.loop import order_of_images

SETTINGS = TrainSettings(
    epochs=2, batch_size=16, lr=0.05, augmentation=Augmentation(crop=0), device="cpu",
    precision="32-true",
)  # fmt: skip
PLAIN = TrainSettings(epochs=2, lr=0.05, device="cpu", precision="32-true")
SP = similarity.DistillationObjective(sp=10.0, sp_layers=(("2", "2"),))


def network(seed, channels=4, width=6, classes=3):
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Dataset:
    """48 images of 4 channels, 8 x 10 pixels, of 3 classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 3
    pixels = torch.randint(0, 100, (48, 4, 8, 10), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(48), labels] += 100
    return Dataset("four", pixels, labels, pixels[:20], labels[:20], tuple("abc"), flips=False)


@pytest.fixture
def batches(images) -> Batches:
    """The very batches that a training on the data set takes with seed 0."""
    order, epochs = torch.Generator().manual_seed(0), iter(range(SETTINGS.epochs))

    def epoch():
        _, batches = order_of_images(48, SETTINGS, next(epochs), order)
        return [(images.normalise(images.x_train[b]), images.y_train[b]) for b in batches]

    class Looked(Batches):
        """Whose first batch is looked at without an epoch being begun."""

        def first(self):
            return images.glance(16), images.y_train[:16]

    return Looked(epoch, length=3)


def similar(student, teacher, data, settings):
    return similarity.distil({"s": student}, teacher, data, {"s": SP}, settings, seed=0)


def faithful(student, teacher, data, settings):
    ensemble = fidelity.Ensemble([teacher])
    wanted = {"s": fidelity.Objective(temperature=2.0, alpha=0.3)}
    return fidelity.distill_from_ensemble({"s": student}, ensemble, data, wanted, settings, seed=0)


def matched(student, teacher, data, settings):
    return matching.match(student, teacher, data, matching.Matching(), settings, seed=0)


@pytest.mark.parametrize("method", [similar, faithful, matched])
def test_the_same_batches_give_the_same_bits_as_a_dataset(images, batches, method):
    students, logs, teacher = [network(0), network(0)], [], network(1, width=8)
    before = weights_digest(teacher.state_dict())
    for student, data, settings in zip(students, (images, batches), (SETTINGS, PLAIN), strict=True):
        teacher.train()
        logs.append(method(student, teacher, data, settings))
        assert all(module.training for module in teacher.modules())
    assert logs[0] == logs[1]
    assert len({weights_digest(one.state_dict()) for one in students}) == 1
    assert weights_digest(teacher.state_dict()) == before


class Dictionary(nn.Module):
    def forward(self, x):
        return {"logits": x}


@pytest.mark.parametrize("method", [similar, faithful, matched])
def test_what_does_not_fit_is_refused_in_one_line(images, method):
    loader = DataLoader(TensorDataset(images.glance(48), images.y_train), 16)
    broken = nn.Sequential(*network(0)[:5], Dictionary())
    with pytest.raises(ValueError, match=r"one tensor|has no attribute 'shape'") as error:
        method(network(0), broken, loader, PLAIN)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"has [25] classes"):
        method(network(0, classes=2), network(1, classes=5), loader, PLAIN)
    if method is not matched:  # which looks at no label
        wrong = [(images.glance(48), images.y_train + 1)]
        with pytest.raises(ValueError, match="labels must be between 0 and 2; got 1 to 3"):
            method(network(0), network(1), wrong, PLAIN)


@pytest.mark.parametrize("method", [similar, faithful])
def test_methods_that_look_at_labels_refuse_batches_without(images, method):
    data = Batches([(images.glance(16), images.y_train[:16])], labelled=False)
    with pytest.raises(ValueError, match="batches must have labels here; got labelled=False"):
        method(network(0), network(1), data, PLAIN)
    labels = matching.Matching(labels=0.5)
    with pytest.raises(ValueError, match="must have labels here"):
        matching.match(network(0), network(1), data, labels, PLAIN, seed=0)
    staged = convnet(2, 3, in_channels=4)
    for measures in (similarity.measures, matching.measures):
        with pytest.raises(ValueError, match="must have labels here"):
            measures({"teacher": staged}, data)


def test_similarities_need_two_examples_a_batch(images):
    data = [(images.glance(1), images.y_train[:1])]
    with pytest.raises(ValueError, match=r"at least 2 examples for similarities .*; got 1: .*drop"):
        similar(network(0), network(1), data, PLAIN)


def test_measures_say_in_one_line_what_does_not_fit(images):
    loader = DataLoader(TensorDataset(images.glance(48), images.y_train), 16)
    broken = {"teacher": nn.Sequential(*network(0), Dictionary())}
    with pytest.raises(ValueError, match="must return one tensor; got dict"):
        similarity.measures(broken, loader, layers={"teacher": "2"})
    with pytest.raises(ValueError, match="must return one tensor; got dict"):
        matching.measures(broken, loader)
    alike = [(images.glance(16), torch.zeros(16, dtype=torch.int64))]
    with pytest.raises(ValueError, match="of one class and two classes; got 1 classes among 16 im"):
        similarity.measures({"teacher": network(0)}, alike, layers={"teacher": "2"})


def test_methods_that_look_at_no_label_need_none(images):
    loader = DataLoader(images.glance(48), 16)
    matched(network(0), network(1), loader, PLAIN)
    ensemble = fidelity.Ensemble([network(1)])
    objectives = {"s": fidelity.Objective()}
    fidelity.distill_from_ensemble({"s": network(0)}, ensemble, loader, objectives, PLAIN, seed=0)


def test_matching_needs_images_and_a_fixed_view_a_dataset(images):
    loader = DataLoader(TensorDataset(images.glance(48), images.y_train), 16)
    fixed = matching.Matching(view="fix/cc")
    with pytest.raises(ValueError, match=r"view 'fix/cc' .* needs a Dataset"):
        matching.match(network(0), network(1), loader, fixed, PLAIN, seed=0)
    mlp = nn.Linear(5, 3)
    with pytest.raises(ValueError, match=r"floating-point images .*got torch.float32 \(2, 5\)"):
        matched(mlp, nn.Linear(5, 3), [(torch.randn(8, 5), torch.arange(8) % 3)], PLAIN)


def test_images_that_are_not_square_are_matched_as_squares(images):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4 * 100, 3))  # of 10 x 10, the longer side
    other = nn.Sequential(nn.Flatten(), nn.Linear(4 * 100, 3))
    assert len(matched(flat, other, images, SETTINGS)) == 2


def test_similarities_are_measured_on_a_loader_as_on_a_dataset(images):
    networks = {"teacher": network(1, width=8), "s": network(0)}
    layers = dict.fromkeys(networks, "2")
    # the order in which the data set's test images are mixed
    mixed = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    x, y = images.normalise(images.x_test)[mixed], images.y_test[mixed]
    loader = DataLoader(TensorDataset(x, y), 8)
    found = similarity.measures(networks, loader, layers=layers)
    expected = similarity.measures(networks, images, 8, layers)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5), name
    look = similarity.portrait(networks["s"], loader, images=10, layer="2")
    assert torch.equal(look.labels, y[:10].sort().values)
    assert look.activations.shape == (10, 6)
    with pytest.raises(ValueError, match="layer must be named for a network without stage_names"):
        similarity.portrait(networks["s"], loader)
    with pytest.raises(ValueError, match="one of the networks must be one of s; got 'teacher'"):
        similarity.measures({"s": networks["s"]}, loader, layers=layers)


def test_students_are_measured_on_a_loader_as_on_a_dataset(images):
    networks = {"teacher": network(1, width=8), "s": network(0)}
    sides = dict.fromkeys(networks, 8)
    x, y = images.normalise(images.x_test), images.y_test
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True)
    train = DataLoader(images.glance(48), 16)
    found = matching.measures(networks, loader, sides, probe=20, train=train)
    expected = matching.measures(networks, images, sides, probe=20)
    assert list(found["s"]) == list(expected["s"])
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    untrained = matching.measures(networks, loader, classifiers={"s": "5"})["s"]
    assert set(untrained) == {name for name in expected["s"] if not name.endswith("train")}
    with pytest.raises(ValueError, match=r"classifier must be a layer, among 0, .*; got 'head'"):
        matching.measures(networks, loader, classifiers={"s": "head"})


def test_one_pass_gives_logits_and_labels_of_a_loader_that_shuffles(images):
    x, y = images.normalise(images.x_test), images.y_test
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True)
    model = network(0).train()
    logits, labels = measure.predict_with_labels(model, loader)
    assert model.training
    expected = measure.predict(model, x)
    assert measure.accuracy(logits, labels) == measure.accuracy(expected, y)
    in_order = DataLoader(TensorDataset(x, y), 8)
    torch.testing.assert_close(measure.predict(model, in_order), expected)
    torch.testing.assert_close(measure.predict(model, iter(in_order)), expected)
    levels = DataLoader(images.x_test, 8)
    torch.testing.assert_close(measure.predict(model, levels, images.normalise), expected)
    with pytest.raises(ValueError, match="must return one tensor; got dict"):
        measure.predict(Dictionary(), x)
