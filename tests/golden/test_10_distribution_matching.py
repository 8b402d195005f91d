"""Distribution matching: transforms, losses and gradients, rivals, evaluation, coresets, counts."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.synthesize import condense as dm

FORWARD = (1e-5, 1e-5)
NORMS = {"instancenorm": "instance", "batchnorm": "batch", "layernorm": "layer", "none": "none",
         "groupnorm": "group"}  # fmt: skip
POOLINGS = {"avgpooling": "average", "maxpooling": "max", "none": "none"}


def gradient_tolerance(expected):
    return 1e-4, 1e-6 * np.abs(expected).max()


def transformed(name, x, values, corners):
    """A transform by the name of its golden values; the colour ones stand alone."""
    values = values.float()
    alone = {"brightness": dm.brightness, "saturation": dm.saturation, "contrast": dm.contrast}
    if name in alone:
        return alone[name](x, values[:, 0])
    return dm.apply_dsa(x, dm.DSAParams(name, values), corners)


@pytest.mark.cases(r"(?P<group>t\d*)\.(?P<name>[a-z]+)\.(?P<result>y|y_corners)")
def test_transforms_with_a_parameter_an_image(values, agrees, group, name, result):
    x, params = values.tensor(f"{group}.x"), values.tensor(f"{group}.{name}.param")
    corners = result == "y_corners"
    expected = values[f"{group}.{name}.{result}"]
    agrees(lambda: transformed(name, x, params, corners), expected, *FORWARD)


@pytest.mark.cases(r"s\.(?P<call>\d+)\.param")
def test_siamese_transforms_share_their_parameter(values, agrees, call):
    families = values["s.families"]
    assert len(values["s.seed"]) == len(values["s.family"])  # how they were drawn
    family = str(families[values["s.family"][int(call)]])
    params = dm.DSAParams(family, values.tensor(f"s.{call}.param")[None].float())
    for batch in ("real", "syn"):
        x = values.tensor(f"s.{batch}")
        agrees(lambda x=x: dm.apply_dsa(x, params), values[f"s.{call}.{batch}_y"], *FORWARD)


def golden_network(values, prefix, dtype=torch.float32):
    """The ConvNet of some weights, in training mode: batch norm averages over the batch."""
    given = dict(str(line).split("=") for line in values[f"{prefix}.cfg"])
    spec = dm.ConvNetSpec(
        int(given["net_depth"]), int(given["net_width"]), given["net_act"],
        NORMS[given["net_norm"]], POOLINGS[given["net_pooling"]],
    )  # fmt: skip
    size = tuple(map(int, re.findall(r"\d+", given["im_size"])))
    network = dm.ConvNet(int(given["num_classes"]), int(given["channel"]), size, spec)
    weights = values.under(f"{prefix}.w.")
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("running" in name or "tracked" in name for name in missing)
    return network.to(dtype).train()


def images_of(values, prefix):
    """Real and synthetic images of a network's group; group C sees those of A."""
    group = prefix if f"{prefix}.real" in values else "A"
    return values.tensor(f"{group}.real"), values.tensor(f"{group}.syn")


def is_joint(network):
    return dm.couples_examples(network)


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.(?P<result>loss|loss64)")
def test_loss(values, agrees, prefix, result):
    dtype = torch.float64 if result == "loss64" else torch.float32
    network = golden_network(values, prefix, dtype)
    real, synthetic = (one.to(dtype) for one in images_of(values, prefix))
    tolerance = (1e-10, 0) if result == "loss64" else FORWARD
    agrees(
        lambda: dm.class_mean_loss(network.embed, list(real), synthetic, joint=is_joint(network)),
        values[f"{prefix}.{result}"],
        *tolerance,
    )


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.(?P<result>grad)")
def test_gradient_of_the_pixels(values, agrees, prefix, result):
    network = golden_network(values, prefix)
    real, synthetic = images_of(values, prefix)
    synthetic.requires_grad_()

    def found():
        joint = is_joint(network)
        loss = dm.class_mean_loss(network.embed, list(real), synthetic, joint=joint)
        return torch.autograd.grad(loss, synthetic)[0]

    expected = values[f"{prefix}.{result}"]
    agrees(found, expected, *gradient_tolerance(expected))


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.(?P<result>mean_real|feat_syn)")
def test_embeddings(values, agrees, prefix, result):
    network = golden_network(values, prefix)
    real, synthetic = images_of(values, prefix)
    batch = real if result == "mean_real" else synthetic

    def found():
        with torch.no_grad():
            each = network.embed(batch.flatten(0, 1)).unflatten(0, batch.shape[:2])
        return each.mean(1) if result == "mean_real" else each

    agrees(found, values[f"{prefix}.{result}"], *FORWARD)
    if result == "mean_real" and not is_joint(network):
        some = [dm.mean_embedding(network, one, together=2) for one in real]
        agrees(lambda: torch.stack(some), values[f"{prefix}.{result}"], *FORWARD)


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.(?P<result>logits_syn)")
def test_logits(values, agrees, prefix, result):
    network = golden_network(values, prefix)
    _, synthetic = images_of(values, prefix)
    agrees(lambda: network(synthetic.flatten(0, 1)), values[f"{prefix}.{result}"], *FORWARD)


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.dsa\.(?P<result>loss|grad)")
def test_siamese_loss_and_gradient(values, agrees, prefix, result):
    network = golden_network(values, prefix)
    real, synthetic = images_of(values, prefix)
    synthetic.requires_grad_()
    families = [str(one) for one in values[f"{prefix}.dsa.family"]]
    assert len(values[f"{prefix}.dsa.seed"]) == len(families)
    rows = [values.tensor(f"{prefix}.dsa.{c}.param")[None].float() for c in range(len(families))]
    params = [dm.DSAParams(family, row) for family, row in zip(families, rows, strict=True)]

    def found():
        loss = dm.class_mean_loss(network.embed, list(real), synthetic, params=params)
        return loss if result == "loss" else torch.autograd.grad(loss, synthetic)[0]

    expected = values[f"{prefix}.dsa.{result}"]
    tolerance = FORWARD if result == "loss" else gradient_tolerance(expected)
    agrees(found, expected, *tolerance)


@pytest.mark.cases(r"(?P<prefix>[A-Z]\d*)\.sgd\.(?P<result>losses)")
def test_updates_of_the_pixels(values, agrees, prefix, result):
    """With the step of `condense`, and the two networks in turns."""
    lr, expected = float(values[f"{prefix}.sgd.lr"]), values[f"{prefix}.sgd.{result}"]
    networks = [golden_network(values, prefix), golden_network(values, f"{prefix}2")]
    real, synthetic = images_of(values, prefix)
    classes, each = real.shape[:2]
    labels = torch.arange(classes).repeat_interleave(each)
    data = dm.image_set(real.flatten(0, 1), labels)
    settings = dm.DMSettings(
        ipc=synthetic.shape[1], iterations=len(expected), lr=lr, strategy=None,
        batch_real=each, precision="32-true", device="cpu",
    )  # fmt: skip
    state = dm.PixelState(synthetic.clone(), torch.zeros_like(synthetic))
    order = iter([networks[0], *(networks[i % 2] for i in range(len(expected)))])  # one to look at
    step = dm.MatchingStep(
        data, range(classes), settings, 0, lambda: next(order), torch.device("cpu"), "32-true"
    )
    for _ in expected:
        state.finish_iteration(step(state), lr)
    agrees(lambda: torch.tensor(state.losses), expected, 1e-3, 1e-4)
    agrees(lambda: state.images, values[f"{prefix}.sgd.syn_after"], 1e-3, 1e-4)


@pytest.mark.cases(r"dc\.(?P<kind>[a-z]+)\.(?P<result>loss|grad)")
def test_gradient_matching(values, agrees, kind, result):
    network = golden_network(values, "A")
    label = int(values["dc.class"])
    real, synthetic = (one[label] for one in images_of(values, "A"))
    synthetic.requires_grad_()
    weights = list(network.parameters())

    def found():
        target = dm.real_gradient(network, real, label, together=3)
        loss = nn.functional.cross_entropy(network(synthetic), torch.full((len(synthetic),), label))
        made = torch.autograd.grad(loss, weights, create_graph=True)
        distance = dm.gradient_distance(target, made, kind)
        return distance if result == "loss" else torch.autograd.grad(distance, synthetic)[0]

    expected = values[f"dc.{kind}.{result}"]
    tolerance = FORWARD if result == "loss" else gradient_tolerance(expected)
    agrees(found, expected, *tolerance)


@pytest.mark.cases(r"(?P<group>ev)\.test_logits")
def test_evaluation(values, agrees, group):
    small = dm.image_set(values.tensor(f"{group}.train_x"), values.tensor(f"{group}.train_y"))
    test = values.tensor(f"{group}.test_x"), values.tensor(f"{group}.test_y")
    settings = dm.EvalSettings(
        epochs=int(values[f"{group}.epoch_arg"]), lr=float(values[f"{group}.lr"]), strategy=None,
        device="cpu",
    )  # fmt: skip
    trained = dm.train_on(small, lambda: golden_network(values, "A"), settings)
    accumulated = (1e-3, 1e-4)
    with torch.no_grad():
        agrees(lambda: trained.network(test[0]), values[f"{group}.test_logits"], *accumulated)
    of = dm.image_set(*test, classes=small.classes)
    agrees(lambda: dm.accuracy(trained.network, of), values[f"{group}.test_acc"], 1e-6)
    agrees(lambda: trained.train_accuracy, values[f"{group}.train_acc_last"], 1e-6)
    state = trained.network.state_dict()
    for name, expected in values.under(f"{group}.after.").items():
        agrees(lambda name=name: state[name], expected.numpy(), *accumulated)


@pytest.mark.cases(r"(?P<group>cs\d*)\.(?P<method>herding|kcenter)")
def test_coresets(values, agrees, group, method):
    expected = values[f"{group}.{method}"]
    choose = dm.herding if method == "herding" else dm.k_center
    features = values.tensor(f"{group}.features64")
    agrees(lambda: choose(features, len(expected)), expected)


@pytest.mark.cases(r"(?P<group>fg)\.correct")
def test_forgetting(values, agrees, group):
    found = dm.forgetting_events(values.tensor(f"{group}.correct"))
    agrees(lambda: found.events, values[f"{group}.events"])
    agrees(lambda: found.never.to(torch.uint8), values[f"{group}.never_learned"])


@pytest.mark.cases(r"cnt\.(?P<table>params)")
def test_networks_have_the_published_sizes(values, table):
    """-1 stands for what the official code does not have: an embedding, or images of 64 pixels."""
    names, settings = values["cnt.names"], values["cnt.settings"].tolist()
    params, embed, macs = values[f"cnt.{table}"], values["cnt.embed"], values["cnt.macs"]
    for i, name in enumerate(names):
        for j, (channels, classes, side) in enumerate(settings):
            if params[i, j] < 0:
                continue
            network = dm.network(str(name), classes, channels, (side, side))
            assert measure.parameters(network) == params[i, j], name
            with torch.device("meta"):
                shape = network.to("meta").embed(torch.empty(2, channels, side, side)).shape
            if embed[i, j] >= 0:
                assert shape[1] == embed[i, j], name
            assert measure.macs(network, (channels, side, side)) == macs[i, j], name


@pytest.mark.cases(r"nas\.(?P<table>params)")
def test_the_space_has_the_published_sizes(values, table):
    space = dm.convnet_space()
    assert len(set(space)) == len(space) == len(values[f"nas.{table}"])
    with torch.device("meta"):
        found = [measure.parameters(dm.ConvNet(10, 3, (32, 32), spec)) for spec in space]
    np.testing.assert_array_equal(found, values[f"nas.{table}"])


@pytest.mark.cases(r"cl\.(?P<table>class_order)")
def test_class_orders(values, table):
    expected = values[f"cl.{table}"]
    np.testing.assert_array_equal(
        dm.class_orders(expected.shape[1], range(len(expected))), expected
    )
