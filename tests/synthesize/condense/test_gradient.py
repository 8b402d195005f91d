"""Gradient matching, DC and DSA: distances, loops, stops."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets.synthesize import condense as dm

QUICK = dm.GradientMatchingSettings(
    ipc=2, iterations=2, outer=2, inner=1, batch_real=8, precision="32-true", device="cpu"
)


def gradients(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=draws) for shape in ((4, 3, 3, 3), (4,), (5, 8), (5,))]


def test_distances_by_hand():
    a, b = gradients(0), gradients(1)
    rows = 0.0
    for x, y in ((a[0].flatten(1), b[0].flatten(1)), (a[2], b[2])):
        rows += float((1 - nn.functional.cosine_similarity(x, y)).sum())
    assert float(dm.gradient_distance(a, b)) == pytest.approx(rows, rel=1e-4)
    flat = [torch.cat([one.flatten() for one in side]) for side in (a, b)]
    squares = float((flat[0] - flat[1]).square().sum())
    assert float(dm.gradient_distance(a, b, "mse")) == pytest.approx(squares, rel=1e-5)
    cosine = 1 - float(nn.functional.cosine_similarity(*flat, dim=0))
    assert float(dm.gradient_distance(a, b, "cos")) == pytest.approx(cosine, rel=1e-4)
    layer = [torch.ones(2, 3, 3)], [torch.ones(2, 3, 3)]
    assert float(dm.gradient_distance(*layer)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", dm.DISTANCES)
def test_a_gradient_is_no_distance_from_itself_and_biases_count_where_they_should(kind):
    a, b = gradients(), gradients()
    assert float(dm.gradient_distance(a, b, kind)) == pytest.approx(0, abs=1e-4)
    b[1] = -b[1]
    assert (float(dm.gradient_distance(a, b, kind)) > 0.01) == (kind != "ours")


def test_published_loops_and_settings():
    assert dm.GradientMatchingSettings(10).loops == (10, 50)
    assert dm.GradientMatchingSettings(50).loops == (50, 10)
    assert dm.GradientMatchingSettings(10, outer=2).loops == (2, 50)
    assert dm.GradientMatchingSettings(10).init == "noise"
    assert dm.dsa(1).init == "real"
    assert dm.dsa(1).strategy == dm.FULL


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, init="real", strategy=dm.FULL)])
def test_one_step_brings_the_gradients_closer(real, net, norm, settings):
    """With one network and one view, the distance falls along the pixels' gradient."""
    factory = dm.Pool([net(norm=norm, activation="swish")()])
    once = replace(settings, outer=1, iterations=1, lr=0.01, strategy=None, batch_real=12)
    first = dm.match_gradients(real, once, factory=factory)
    again = dm.match_gradients(
        real, replace(once, iterations=2), factory=factory, resume=first.state
    )
    assert again.losses[1] < again.losses[0]
    learned = dm.match_gradients(real, settings, factory=net(norm=norm)).set
    assert learned.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_real_gradients_in_parts_are_those_of_the_whole(net, real):
    network = net()()
    x = real.images[real.labels == 2]
    loss = nn.functional.cross_entropy(network(x), torch.full((len(x),), 2))
    expected = torch.autograd.grad(loss, list(network.parameters()))
    for together in (1, 5, 100):
        found = dm.real_gradient(network, x, 2, together)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    rounded = dm.real_gradient(network, x, 2, 100, "bf16-mixed")
    assert float(dm.gradient_distance(rounded, list(expected), "cos")) < 0.01


def test_batch_norm_stands_still_while_gradients_are_matched(net, real):
    network = net(norm="batch")().train()
    with dm.frozen_statistics(network, real.images):
        before = {k: v.clone() for k, v in network.state_dict().items()}
        one, many = network(real.images[:1]), network(real.images)
        torch.testing.assert_close(one, many[:1])
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    assert all(module.training for module in network.modules())


def test_networks_are_trained_between_steps_alone(real, net):
    """The last matching step of a network is not followed by training."""
    one = dm.match_gradients(real, replace(QUICK, outer=1, inner=1), factory=net())
    other = dm.match_gradients(real, replace(QUICK, outer=1, inner=9), factory=net())
    assert torch.equal(one.set.images, other.set.images)
    one = dm.match_gradients(real, replace(QUICK, inner=0), factory=net())
    other = dm.match_gradients(real, replace(QUICK, inner=9, lr_network=0.5), factory=net())
    assert not torch.equal(one.set.images, other.set.images)


def test_a_run_goes_on_bit_for_bit(real, net, tmp_path):
    whole = dm.match_gradients(real, QUICK, factory=net())
    half = dm.match_gradients(real, replace(QUICK, iterations=1), factory=net())
    rest = dm.match_gradients(real, QUICK, factory=net(), resume=half.state)
    assert torch.equal(rest.set.images, whole.set.images)
    kept = {"factory": net(), "cache_dir": tmp_path}
    dm.match_gradients(real, QUICK, **kept)
    assert len(list(tmp_path.iterdir())) == 1
    again = dm.match_gradients(real, QUICK, **kept)
    assert torch.equal(again.set.images, whole.set.images)
    dm_state = dm.condense(
        real, dm.DMSettings(ipc=2, iterations=1, batch_real=8), embed_factory=net()
    ).state
    with pytest.raises(ValueError, match="a run is resumed with the settings it began with"):
        dm.match_gradients(real, QUICK, factory=net(), resume=dm_state)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dm.GradientMatchingSettings(7), "outer and inner must be given.*got ipc 7"),
        (lambda: replace(QUICK, distance="l1"), "distance must be one of ours, mse, cos"),
        (lambda: replace(QUICK, lr_network=0), "lr_network must be greater than 0"),
        (lambda: replace(QUICK, outer=0), "outer must be at least 1"),
        (lambda: replace(QUICK, init="mean"), "init must be one of"),
        (lambda: dm.gradient_distance(gradients(), gradients()[:2]), "gradients must be of one"),
        (lambda: dm.gradient_distance([], []), "gradients must be of one network"),
        (lambda: dm.gradient_distance(gradients(), gradients(), "l2"), "distance must be one of"),
    ],
)
def test_bad_inputs_are_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
