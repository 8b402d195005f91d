"""The door: a generator of one's own, within a budget."""

import pytest
import torch
from torch import nn

from smallnets import gan, measure
from smallnets.data.translation import Translation
from smallnets.gan.networks import PatchDiscriminator
from smallnets.gan.pipeline import as_translation
from smallnets.training import seeded

ONE = gan.GANTraining(epochs=1, decay_epochs=0, batch_size=2, lr=1e-3, device="cpu")
FEW = gan.Evolution(population=4, generations=2)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.conv(x))


def generator(seed=0):
    """None of the library's: encoder, blocks, decoder."""
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), Block(8), Block(8),
            nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, 1, 1), nn.Tanh(),
        ).eval()  # fmt: skip


def images(count=10, side=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=draw) * 2 - 1


def small(data, **more):
    settings = {"budget": 0.5, "training": ONE, "search": FEW}
    return gan.compress(more.pop("generator", None) or generator(), data, **settings | more)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_pairs_within_half_of_the_cost(tmp_path):
    whole, judge = generator().train(), PatchDiscriminator(6, 4, 1)
    before, judged = weights(whole), weights(judge)
    data = images(), images(seed=1)
    found = small(
        data, generator=whole, discriminator=judge, taps=["2", "3"], fine_tuning=ONE,
        cache_dir=tmp_path,
    )  # fmt: skip
    assert found.full_cost.exact == measure.macs(whole, (3, 8, 8))
    assert found.cost.exact <= 0.5 * found.full_cost.exact
    assert found.cost.exact == measure.macs(found.network, (3, 8, 8))
    assert found.cost.parameters == measure.parameters(found.network)
    assert found.network(images(2)).shape == (2, 3, 8, 8)
    assert not found.network.training
    assert type(found.network) is nn.Sequential
    assert {"G_distill", "largest", "smallest"} - set(found.history[0]) == {"largest", "smallest"}
    assert len(found.tuning) == 1
    for network, old in ((whole, before), (judge, judged)):
        new = network.state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old)
        assert all(one.requires_grad for one in network.parameters())
    assert whole.training
    files = sorted(one.name for one in tmp_path.iterdir())
    again = small(
        data, generator=whole, discriminator=judge, taps=["2", "3"], fine_tuning=ONE,
        cache_dir=tmp_path,
    )  # fmt: skip
    assert sorted(one.name for one in tmp_path.iterdir()) == files
    assert again.search == found.search
    assert torch.equal(again.network(images(2)), found.network(images(2)))


def test_images_alone_and_an_absolute_budget():
    found = small(images(), budget=12_000, method="random", evaluations=3)
    assert found.cost.exact <= 12_000
    assert "G_distill" not in found.history[0]
    assert len(found.search.scores) == 3
    by_size = small(images(), budget=900, cost="parameters")
    assert measure.parameters(by_size.network) <= 900


def test_unpaired_domains_and_a_measure_of_ones_own():
    a, b = (as_translation(generator(), images(seed=seed)).a_train for seed in (0, 1))
    data = Translation("own", a.repeat(2, 1, 1, 1), b, a[:1], b[:1], paired=False)
    seen = []

    def measure_of(target):
        seen.append(target)
        return lambda made: float(made.mean())

    found = small(data, measure=measure_of, maximise=True)
    assert seen[0].shape == (2, 3, 8, 8)
    assert found.search.score == max(found.search.scores.values())


def test_only_named_layers_change():
    found = small((images(), images(seed=1)), widths={"3.conv": [8, 4, 2]})
    assert found.network[5].weight.shape[0] < 8
    assert found.network[5].weight.shape[1] == 8


def test_a_budget_below_the_smallest_is_refused_before_any_training(monkeypatch):
    monkeypatch.setattr("smallnets.gan.pipeline.train_supernet", None)
    with pytest.raises(ValueError, match=r"^budget must be at least \d+, the cost of the smallest"):
        small(images(), budget=10)


@pytest.mark.parametrize(
    ("data", "more", "line"),
    [
        ([images()], {}, "data must be a Translation, images, or a pair"),
        ((images(), images().numpy()), {}, "targets must be a tensor; got ndarray"),
        ((images() * 2, images()), {}, "inputs must be from -1 to 1; got"),
        ((images() / 0, images()), {}, "inputs must be finite"),
        ((images().long(), images()), {}, "inputs must be uint8 or floating point"),
        ((images()[0], images()), {}, r"inputs must be images \(n, channels, height, width\)"),
        ((images(4), images(5)), {}, "pairs of the train part must be"),
        (images(1), {}, "data must hold at least 2 images"),
        (images()[:, :2], {}, "the generator does not take images of shape"),
        ((images()[:, :2], images()), {}, "the generator does not take images of shape"),
        ((images(), images()[:, :1]), {}, "the generator must make images of shape"),
        (images(), {"budget": 0}, "budget must be greater than 0"),
        (images(), {"cost": "seconds"}, "cost must be one of exact, published, parameters"),
        (images(), {"objective": gan.Objective()}, "a distillation weight of 1.0 needs taps"),
        (images(), {"taps": ["nothing"]}, "a tap must be the dotted name"),
        (images(), {"method": "luck"}, "method must be one of"),
        (images(), {"seed": -1}, "seed must be"),
        (
            images(),
            {"discriminator": PatchDiscriminator(6, 4, 1)},
            r"the discriminator must take images of shape \(3, 8, 8\)",
        ),
    ],
)
def test_bad_inputs_are_refused_in_one_line(data, more, line):
    with pytest.raises(ValueError, match=f"^({line})[^\n]*$"):
        small(data, **more)
