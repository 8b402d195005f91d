"""Similarity-preserving distillation: losses, gradients, whole training steps, networks' sizes.

The student's features are `fs` and its logits `zs`, the teacher's `ft` and `zt`.
"""

import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from smallnets.distill.classic import at_loss, attention_map, kd_loss
from smallnets.distill.fidelity import divergence, soft_cross_entropy
from smallnets.distill.similarity import DistillationObjective, similarity_matrix, sp_loss
from smallnets.measure import macs, parameters
from smallnets.models import FeatureTap, cifar_resnet, wide_resnet
from smallnets.training import ModelOutputs, TrainSettings, new_optimizer

END = (("end", "end"),)
# "Similarity-preserving" losses that are other functions, the first two with matrices scaled by L1.
WRONG = ("sp_td_l1_batchmean", "sp_td_l1_sum", "sp_variant_globalfro", "sp_variant_cosine")
NORMALISATIONS = {"globalfro": "frobenius", "cosine": "cosine"}
SOFT_TARGETS = {
    "kd": kd_loss,
    "kl_noT2": lambda student, teacher, tau: divergence(
        student_logits=student, teacher_logits=teacher, temperature=tau
    ),
    "kl_rev_noT2": lambda student, teacher, tau: divergence(
        student_logits=teacher, teacher_logits=student, temperature=tau
    ),
    "softce_T2": lambda student, teacher, tau: soft_cross_entropy(
        student_logits=student, teacher_logits=teacher, temperature=tau
    ),
    "elemmean": lambda student, teacher, tau: kd_loss(student, teacher, tau) / student.shape[1],
}
WIDE = {"width": 64, "stem": 32}  # the benchmark's "x4"


def near(inputs):
    """Tolerances for results from these inputs."""
    return {"rtol": 1e-4, "atol": 1e-6} if inputs.dtype == torch.float32 else {}


def pair(values, case, letter="f"):
    """The student's features or logits, which take a gradient, and the teacher's."""
    return values.leaf(f"{case}_{letter}s"), values.tensor(f"{case}_{letter}t")


def slope(loss, leaf):
    """Gradient of a loss with respect to one of its inputs."""
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.cases(r"(?P<case>\w+)_G(?P<side>[st])")
def test_similarity_matrices(values, agrees, case, side):
    features = values.tensor(f"{case}_f{side}")
    agrees(lambda: similarity_matrix(features), values[f"{case}_G{side}"], **near(features))


@pytest.mark.cases(r"(?P<case>\w+)_sp")
def test_similarity_loss_and_gradient(values, agrees, case):
    student, teacher = pair(values, case)
    agrees(lambda: sp_loss(student, teacher), values[f"{case}_sp"], **near(student))
    expected = values[f"{case}_sp_grad_fs"]
    agrees(lambda: slope(sp_loss(student, teacher), student), expected, **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_sp_variant_(?P<kind>\w+)")
def test_other_normalisations_are_to_be_had_by_name(values, agrees, case, kind):
    student, teacher = pair(values, case)
    expected = values[f"{case}_sp_variant_{kind}"]
    agrees(lambda: sp_loss(student, teacher, NORMALISATIONS[kind]), expected, **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_sp_td_l1_(?P<reduction>sum|batchmean)")
def test_the_library_with_l1_rows_is_another_function_of_the_same_products(
    values, agrees, case, reduction
):
    features = pair(values, case)
    student, teacher = (F.normalize(similarity_matrix(one, "none"), p=1, dim=1) for one in features)
    squares = (student - teacher).square()
    found = squares.sum() if reduction == "sum" else squares.mean()
    agrees(lambda: found, values[f"{case}_sp_td_l1_{reduction}"], **near(student))


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_sp_variant_cosine")
def test_it_is_none_of_the_functions_that_go_by_its_name(values, case):
    loss = sp_loss(*pair(values, case)).item()
    for wrong in WRONG:
        assert abs(loss - values[f"{case}_{wrong}"]) > 0.01 * loss


@pytest.mark.cases(r"(?P<case>\w+?)_at(?P<power>_p[\d.]+)?")
def test_attention_loss_and_gradient(values, agrees, case, power):
    key = f"{case}_at{power or ''}"
    student, teacher = pair(values, case)
    p = float(power[2:]) if power else 2.0
    agrees(lambda: at_loss(student, teacher, p), values[key], **near(student))
    expected = values[f"{key}_grad_fs"]
    agrees(lambda: slope(at_loss(student, teacher, p), student), expected, **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_at_map_(?P<side>[st])")
def test_attention_maps(values, agrees, case, side):
    features = values.tensor(f"{case}_f{side}")
    agrees(lambda: attention_map(features), values[f"{case}_at_map_{side}"], **near(features))


@pytest.mark.cases(r"(?P<case>\w+)_at_tdpaper")
def test_the_attention_papers_formula_has_the_norm_unsquared(values, agrees, case):
    student, teacher = pair(values, case)
    maps = attention_map(student) - attention_map(teacher)
    agrees(lambda: maps.norm(dim=1).mean(), values[f"{case}_at_tdpaper"], **near(student))


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_at_tdpaper")
def test_which_is_not_the_published_codes(values, case):
    assert abs(at_loss(*pair(values, case)).item() - values[f"{case}_at_tdpaper"]) > 1e-3


@pytest.mark.cases(r"(?P<case>\w+)_(?P<term>sp|at)_list")
def test_pairs_of_layers_are_summed(values, agrees, case, term):
    expected = values[f"{case}_{term}_list"]
    names = [str(i) for i in range(len(expected))]
    assert {f"{case}_f{side}{i}" for side in "st" for i in names} == {
        key for key in values if re.fullmatch(rf"{case}_f[st]\d+", key)
    }
    students, teachers = ([values.tensor(f"{case}_f{side}{i}") for i in names] for side in "st")
    loss = {"sp": sp_loss, "at": at_loss}[term]
    for student, teacher, one in zip(students, teachers, expected, strict=True):
        agrees(lambda s=student, t=teacher: loss(s, t), one, **near(student))

    layers = tuple((name, name) for name in names)
    objective = DistillationObjective(**{"ce": 0, term: 1, f"{term}_layers": layers})
    logits = torch.zeros(len(students[0]), 2)
    seen = (
        ModelOutputs(logits, dict(zip(names, side, strict=True))) for side in (students, teachers)
    )
    total = values[f"{case}_{term}_sum"]
    agrees(lambda: objective(*seen, logits.argmax(1))[0], total, **near(students[0]))


@pytest.mark.cases(rf"(?P<case>\w+)_(?P<form>{'|'.join(SOFT_TARGETS)})")
def test_soft_targets_and_what_is_mistaken_for_them(values, agrees, case, form):
    student, teacher = pair(values, case, "z")
    temperatures = values[f"{case}_T"].tolist()
    for tau, expected in zip(temperatures, values[f"{case}_{form}"], strict=True):
        agrees(lambda tau=tau: SOFT_TARGETS[form](student, teacher, tau), expected, **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_kd")
def test_gradient_of_soft_targets(values, agrees, case):
    student, teacher = pair(values, case, "z")
    temperatures = values[f"{case}_T"].tolist()
    for tau, expected in zip(temperatures, values[f"{case}_grad"], strict=True):
        agrees(
            lambda tau=tau: slope(kd_loss(student, teacher, tau), student),
            expected,
            **near(student),
        )


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_kd")
def test_soft_targets_are_none_of_the_common_mistakes(values, case):
    for wrong in ("kl_rev_noT2", "softce_T2", "elemmean"):
        gap = np.abs(values[f"{case}_kd"] - values[f"{case}_{wrong}"])
        assert (gap > 1e-3 * values[f"{case}_kd"]).all()


def labels_only(values, case):
    """The student's logits, and a function from an objective to its total on them."""
    student, teacher = pair(values, case, "z")
    labels = values.tensor(f"{case}_y")
    return student, lambda objective: objective(
        ModelOutputs(student, {}), ModelOutputs(teacher, {}), labels
    )[0]


@pytest.mark.cases(r"(?P<case>\w+)_ce")
def test_labels_alone(values, agrees, case):
    student, total = labels_only(values, case)
    agrees(lambda: total(DistillationObjective()), values[f"{case}_ce"], **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_szag_a(?P<alpha>[\d.]+)")
def test_weighted_with_the_labels_it_is_the_published_objective(values, agrees, case, alpha):
    student, total = labels_only(values, case)

    def at(tau):
        share = float(alpha)
        return total(DistillationObjective(ce=1 - share, kd=share, temperature=tau))

    temperatures = values[f"{case}_T"].tolist()
    for tau, expected in zip(temperatures, values[f"{case}_szag_a{alpha}"], strict=True):
        agrees(lambda tau=tau: at(tau), expected, **near(student))
    for tau, expected in zip(temperatures, values[f"{case}_szag_grad"], strict=True):
        agrees(lambda tau=tau: slope(at(tau), student), expected, **near(student))


@pytest.mark.cases(r"(?P<case>\w+)_weights_ce_kd_sp_T")
def test_whole_objective_and_its_gradients(values, agrees, case):
    ce, kd, sp, temperature = values[f"{case}_weights_ce_kd_sp_T"].tolist()
    features, their_features = pair(values, case)
    logits, their_logits = pair(values, case, "z")
    labels = values.tensor(f"{case}_y")

    def total():
        objective = DistillationObjective(
            ce=ce, kd=kd, sp=sp, temperature=temperature, sp_layers=END
        )
        student = ModelOutputs(logits, {"end": features})
        teacher = ModelOutputs(their_logits, {"end": their_features})
        found, terms = objective(student, teacher, labels)
        assert set(terms) == {
            name for name, weight in {"ce": ce, "kd": kd, "sp": sp}.items() if weight
        }
        return found

    agrees(total, values[f"{case}_total"], **near(features))
    agrees(lambda: slope(total(), features), values[f"{case}_grad_fs"], **near(features))
    agrees(lambda: slope(total(), logits), values[f"{case}_grad_zs"], **near(features))


def perceptron(values, case):
    """The student: linear layers with ReLUs between, from its arrays, and those arrays' names."""
    keys = [
        f"{kind}{i}" for i in range(1, len(values)) for kind in "Wb" if f"{case}_W{i}" in values
    ]
    layers = []
    for key in keys[::2]:
        outputs, inputs = values[f"{case}_{key}"].shape
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    student = nn.Sequential(*layers[:-1])
    for parameter, key in zip(student.parameters(), keys, strict=True):
        parameter.data = values.tensor(f"{case}_{key}")
    return student, keys


@pytest.mark.cases(r"(?P<case>\w+)_lr_mom_wd_ce_kd_sp_T")
def test_optimiser_steps(values, agrees, case):
    lr, momentum, decay, ce, kd, sp, temperature = values[f"{case}_lr_mom_wd_ce_kd_sp_T"].tolist()
    student, keys = perceptron(values, case)
    settings = TrainSettings(lr=lr, momentum=momentum, weight_decay=decay)
    optimizer = new_optimizer(student, settings)
    even = DistillationObjective(kd=1, sp=1, temperature=temperature, sp_layers=END)
    objective = replace(even, ce=ce, kd=kd, sp=sp)
    batches = list(
        zip(*(values.tensor(f"{case}_{key}") for key in ("X", "Y", "TF", "TZ")), strict=True)
    )
    expected = values[f"{case}_losses_ce_kd_sp_total"]

    def losses():
        for step in range(len(expected)):
            x, y, features, logits = batches[step % len(batches)]
            seen = student[:-1](x)
            both = (
                ModelOutputs(student[-1](seen), {"end": seen}),
                ModelOutputs(logits, {"end": features}),
            )
            total, (_, terms) = objective(*both, y)[0], even(*both, y)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            yield [term.item() for term in (terms["ce"], terms["kd"], terms["sp"], total)]

    agrees(lambda: np.array(list(losses())), expected, rtol=1e-8, atol=0)
    for parameter, key in zip(student.parameters(), keys, strict=True):
        agrees(lambda p=parameter: p, values[f"{case}_{key}_end"], rtol=1e-8, atol=0)


def sizes(network, side=32):
    """Parameters, and multiplications for a colour image."""
    return parameters(network), macs(network, (3, side, side))


def test_sizes_of_wide_resnets(values):
    table = values["N_wrn_depth_width_classes_params_convmacs_fcmacs"]
    assert len(table) > 0
    for depth, width, classes, count, convolutions, linear in table.tolist():
        with torch.device("meta"):
            network = wide_resnet(depth, width, classes)
            assert sizes(network) == (count, convolutions + linear), (depth, width, classes)


@cache
def resnets_of_size(classes, count, multiplications):
    """All (depth, width and stem) of CIFAR ResNets of this size; weights are linear in depth."""
    found = []
    for widths in ({}, WIDE):
        with torch.device("meta"):
            one, two = (parameters(cifar_resnet(depth, classes, **widths)) for depth in (8, 14))
            more, rest = divmod(count - one, two - one)
            if rest == 0 and more >= 0:
                network = cifar_resnet(8 + 6 * more, classes, **widths)
                if sizes(network) == (count, multiplications):
                    found.append((8 + 6 * more, widths))
    return found


def benchmark_resnets(values):
    """For each row of the table, the networks of that size."""
    table = values["N_rdresnet_classes_params_convmacs_fcmacs"].tolist()
    return [
        resnets_of_size(classes, count, convolutions + linear)
        for classes, count, convolutions, linear in table
    ]


def test_sizes_of_cifar_resnets(values):
    found = benchmark_resnets(values)
    assert [len(networks) for networks in found] == [1] * len(found) != []


@pytest.mark.sample
def test_cifar_resnets_are_the_benchmarks(values):
    """resnet8, 14, 20, 32, 56, 110, resnet8x4, resnet32x4."""
    narrow = [(depth, {}) for depth in (8, 14, 20, 32, 56, 110)]
    expected = [*narrow, (8, WIDE), (32, WIDE)]
    assert benchmark_resnets(values) == [[one] for one in expected]


def test_sizes_of_mobile_networks(values):
    rows = values["N_mobile_classes_size_params_convmacs_fcmacs"].tolist()
    assert len(rows) > 0
    for name, row in zip(values["N_mobile_names"].tolist(), rows, strict=True):
        classes, side, count, convolutions, linear = row
        family, factor = name.split(" x")
        build = getattr(models, f"{family}_x{factor.replace('.', '_')}", None)
        with torch.device("meta"):
            if build is None:
                network = getattr(models, family)(num_classes=classes, width_mult=float(factor))
            else:
                network = build(num_classes=classes)
            assert sizes(network, side) == (count, convolutions + linear), name


def our_name(name):
    """The published code's name of a weight of a Wide ResNet, in this library's words."""
    if name == "conv1.weight":
        return "conv.weight"
    parts = name.split(".")
    if parts[0].startswith("block"):
        stage, _, index, *rest = parts
        layer = rest[0].replace("bn", "norm").replace("convShortcut", "shortcut")
        return ".".join([stage.replace("block", "stage"), index, layer, *rest[1:]])
    return ".".join([{"bn1": "norm", "fc": "classifier"}[parts[0]], *parts[1:]])


def published(values, net):
    """The published code's network with its own weights, rebuilt from nothing but the file."""
    shapes = [tuple(side for side in shape if side) for shape in values[f"{net}_shapes"].tolist()]
    pieces = values.tensor(f"{net}_state").split([math.prod(shape) for shape in shapes])
    state = {
        name: piece.reshape(shape)
        for name, piece, shape in zip(values[f"{net}_keys"].tolist(), pieces, shapes, strict=True)
    }
    blocks = sum(name.startswith("block1.") and name.endswith("conv1.weight") for name in state)
    width = len(state["block1.layer.0.conv1.weight"]) // 16
    channels = state["conv1.weight"].shape[1]
    network = wide_resnet(6 * blocks + 4, width, len(state["fc.bias"]), channels).eval()
    ours = {our_name(name): weight for name, weight in state.items()}
    missing, unexpected = network.load_state_dict(ours, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert unexpected == []
    return network


def seen_by(values, net, feature=None):
    """What a published network makes of its images: logits, or a feature map f0, f3, f3_preact."""
    network = published(values, net)
    names = ("conv", *network.stage_names, "flatten")
    wanted = "classifier"
    if feature:
        index = int(re.match(r"f(\d+)", feature)[1])
        after = (*(f"{stage}.0.norm1" for stage in network.stage_names), "norm")
        wanted = after[index] if feature.endswith("_preact") else names[index]
    with FeatureTap(network, [wanted]) as tap, torch.no_grad():
        network(values.tensor(f"{net}_x"))
    return tap.features[wanted]


SINGLE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.mark.cases(r"(?P<net>\w+)_logits")
def test_logits_of_a_published_network(values, agrees, net):
    agrees(lambda: seen_by(values, net), values[f"{net}_logits"], **SINGLE)


@pytest.mark.cases(r"(?P<net>\w+_net)_(?P<feature>f\d+(?:_preact)?)")
def test_features_of_a_published_network(values, agrees, net, feature):
    agrees(lambda: seen_by(values, net, feature), values[f"{net}_{feature}"], **SINGLE)


@pytest.mark.cases(r"(?P<net>\w+)_(?P<feature>f\d+)_shape")
def test_shapes_and_means_of_every_stage(values, agrees, net, feature):
    found = seen_by(values, net, feature)
    assert list(found.shape) == values[f"{net}_{feature}_shape"].tolist()
    agrees(lambda: found.flatten(1).mean(1), values[f"{net}_{feature}_mean"], **SINGLE)


@pytest.mark.cases(r"(?P<net>\w+)_keys")
def test_attention_maps_of_a_published_network(values, agrees, net):
    """Layers of which none was stored have an empty array."""
    keys = [key for key in values if re.fullmatch(rf"{net}_f\d+_attention", key)]
    stored = [key for key in keys if values[key].size]
    assert stored != []
    for key in stored:
        feature = key.removeprefix(f"{net}_").removesuffix("_attention")
        agrees(lambda f=feature: attention_map(seen_by(values, net, f)), values[key], **SINGLE)
