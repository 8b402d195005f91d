"""Chapter 01: quantisers, pruning masks, soft targets and counts, as public implementations give
them.
"""

import re
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from smallnets import measure, models
from smallnets.distill.classic import kd_loss
from smallnets.prune import sparse, structured
from smallnets.prune.importance.criteria import magnitude
from smallnets.prune.importance.schedule import select
from smallnets.quantize import probabilistic
from smallnets.quantize.binary import (
    binary_product,
    binary_weights,
    filter_scale,
    pack_signs,
    sign,
    xnor_latent,
)
from smallnets.quantize.dorefa import dorefa_activations, dorefa_gradients, dorefa_weights
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.pact import pact
from smallnets.quantize.power_of_two import power_of_two, power_range
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.ternary import best_ternary, ttq, twn
from smallnets.quantize.uniform import (
    affine_grid,
    dequantize,
    fake_quantize,
    nearest_codes,
    symmetric_grid,
)
from smallnets.structure import (
    CodebookLinear,
    LowRankLinear,
    SeparableConv2d,
    TTLinear,
    Tucker2Conv2d,
    circulant_matrix,
    circulant_product,
    separable_kernel,
    start_centroids,
    truncation_error,
)


def forward_or_gradient(what, function, upstream, **inputs):
    """function(*inputs) if `what` is "fwd", else its gradient to the input of that name."""
    output = function(*inputs.values())
    return output if what == "fwd" else torch.autograd.grad(output, inputs[what], upstream)[0]


@pytest.mark.cases(r"(?P<form>dorefa_\w+)/w(?P<bits>\d+)/(?P<what>\w+)")
def test_dorefa_weights(values, agrees, form, bits, what):
    scale = {"dorefa_paper": "unit", "dorefa_scaled_variant": "largest"}[form]
    w, upstream = values.leaf("in/w"), values.tensor("in/gw")
    agrees(
        lambda: forward_or_gradient(
            what, lambda w: dorefa_weights(w, int(bits), scale), upstream, grad=w
        ),
        values[f"{form}/w{bits}/{what}"],
    )


@pytest.mark.cases(r"dorefa/a(?P<bits>\d+)/(?P<what>\w+)")
def test_dorefa_activations(values, agrees, bits, what):
    a, upstream = values.leaf("in/a"), values.tensor("in/ga")
    agrees(
        lambda: forward_or_gradient(
            what, lambda a: dorefa_activations(a, int(bits)), upstream, grad=a
        ),
        values[f"dorefa/a{bits}/{what}"],
    )


@pytest.mark.cases(r"dorefa/g/(?P<bits>\d+)")
def test_dorefa_gradients(values, agrees, bits):
    gradient, noise = values.tensor("dorefa/g/in"), values.tensor("dorefa/g/u")
    agrees(lambda: dorefa_gradients(gradient, int(bits), noise), values[f"dorefa/g/{bits}"])


@pytest.mark.cases(r"pact/a(?P<bits>\d+)/alpha(?P<index>\d+)/(?P<what>\w+)")
def test_pact(values, agrees, bits, index, what):
    a, upstream = values.leaf("in/a"), values.tensor("in/ga")
    alpha = values.tensor("pact/alphas")[int(index)].requires_grad_()
    agrees(
        lambda: forward_or_gradient(
            what, lambda a, alpha: pact(a, alpha, int(bits)), upstream, grad_x=a, grad_alpha=alpha
        ),
        values[f"pact/a{bits}/alpha{index}/{what}"],
    )


def learned_step(what, x, start, signed, bits, upstream):
    """What LSQ's files hold: the first step, and with it the output and its gradients."""
    low, high = integer_range(int(bits), signed)
    step = start(high)
    if what == "s_init":
        return step
    factor = lsq_gradient_factor(x.numel(), high)
    return forward_or_gradient(
        {"grad_w": "grad_x"}.get(what, what),
        lambda x, step: lsq(x, step, low, high, factor),
        upstream,
        grad_x=x,
        grad_s=step.requires_grad_(),
    )


@pytest.mark.cases(r"lsq/w(?P<bits>\d+)/(?P<kind>pt|pc|s_given)/(?P<what>\w+)")
def test_lsq_weights(values, agrees, bits, kind, what):
    expected = values[f"lsq/w{bits}/{kind}/{what}"]
    w, upstream = values.leaf("in/w"), values.tensor("in/gw")
    given = values.tensor("lsq/s_given") if kind == "s_given" else None

    def start(high):
        return lsq_start(w, high, per_channel=kind == "pc") if given is None else given

    agrees(lambda: learned_step(what, w, start, True, bits, upstream), expected)


@pytest.mark.cases(r"lsq/a(?P<bits>\d+)/(?P<what>\w+)")
def test_lsq_activations(values, agrees, bits, what):
    a, upstream = values.leaf("in/a"), values.tensor("in/ga")
    agrees(
        lambda: learned_step(what, a, lambda high: lsq_start(a, high), False, bits, upstream),
        values[f"lsq/a{bits}/{what}"],
    )


@pytest.mark.cases(r"twn/(?P<kind>tensor|filter|optimal)/(?P<what>\w+)")
def test_ternary_weights(values, agrees, kind, what):
    w = values.tensor("in/w")

    def ternary():
        found = best_ternary(w) if kind == "optimal" else twn(w, per_filter=kind == "filter")
        return {
            "delta": found.threshold,
            "alpha": found.scale,
            "fwd": found.values,
            "n_nonzero": (found.values != 0).sum(),
            "sq_error": (w - found.values).square().sum(),
        }[what]

    agrees(ternary, values[f"twn/{kind}/{what}"])


@pytest.mark.cases(r"twn/(?P<kind>tensor|filter)/fwd")
def test_ternary_weights_pass_the_gradient_on(values, kind):
    w, upstream = values.leaf("in/w"), values.tensor("in/gw")
    output = twn(w, per_filter=kind == "filter").values
    assert torch.equal(torch.autograd.grad(output, w, upstream)[0], upstream)


@pytest.mark.cases(r"ttq/(?P<case>\w+)/(?P<what>fwd|grad_\w+)")
def test_trained_ternary_quantisation(values, agrees, case, what):
    ratio, plus, minus = values.tensor(f"ttq/{case}/settings_t_wp_wn")
    wn, published = minus.requires_grad_(), what == "grad_wn_as_published"
    # The reference holds its two sizes in single precision.
    tolerance = {"rtol": 1e-6, "atol": 1e-9} if what in ("fwd", "grad_latent") else {}
    agrees(
        lambda: forward_or_gradient(
            what,
            lambda w, plus, minus: ttq(w, plus, minus, float(ratio), published_sign=published),
            values.tensor("in/gw"),
            grad_latent=values.leaf("in/w"),
            grad_wp=plus.requires_grad_(),
            **{"grad_wn_as_published" if published else "grad_wn_true_derivative": wn},
        ),
        values[f"ttq/{case}/{what}"],
        **tolerance,
    )


@pytest.mark.cases(r"bnn/(?P<name>\w)_(?P<what>\w+)")
def test_signs(values, agrees, name, what):
    x, upstream = values.leaf(f"in/{name}"), values.tensor(f"in/g{name}")
    what_of_it = {"sign": "fwd"}.get(what, what)
    agrees(
        lambda: forward_or_gradient(what_of_it, sign, upstream, ste_grad=x),
        values[f"bnn/{name}_{what}"],
    )


@pytest.mark.cases(r"bwn/(?P<what>\w+)")
def test_binary_weights_by_filter(values, agrees, what):
    function = {"filter_alpha": filter_scale, "filter_fwd": binary_weights}[what]
    agrees(lambda: function(values.tensor("in/w")), values[f"bwn/{what}"])


@pytest.mark.cases(r"xnor/(?P<what>\w+)")
def test_xnor_weights(values, agrees, what):
    def xnor():
        latent = xnor_latent(values.tensor("in/w"))
        if what == "latent_after_center_clamp":
            return latent
        output = binary_weights(latent.requires_grad_())
        if what == "weight_binarised":
            return output
        (gradient,) = torch.autograd.grad(output, latent, values.tensor("in/gw"))
        # The public implementation multiplies by one more factor, which is not a derivative.
        extra = (1 - 1 / latent.shape[1]) * latent[0].numel()
        return {
            "latent_grad_without_extra_factor": gradient,
            "latent_grad_reimplementation": gradient * extra,
        }[what]

    agrees(xnor, values[f"xnor/{what}"])


def test_products_of_signs_count_bits(values):
    expected, a, b = (
        values["popcount/dot"],
        values.tensor("popcount/a"),
        values.tensor("popcount/b"),
    )
    product = binary_product(pack_signs(a), pack_signs(b), a.shape[1])
    np.testing.assert_array_equal(product, expected)


@pytest.mark.cases(r"affine/(?P<bits>\d+)/(?P<kind>tensor|channel)/(?P<what>\w+)")
def test_affine_grids(values, agrees, bits, kind, what):
    w = values.tensor("in/w")
    expected = values[f"affine/{bits}/{kind}/{what}"]

    def grid(what):
        step, zero = affine_grid(w, int(bits), per_channel=kind == "channel")
        high = 2 ** int(bits) - 1
        codes = nearest_codes(w, step, 0, high, zero)
        return {
            "scale_multiplier": 1 / step,
            "zero_point_subtracted": -zero,
            "q": codes,
            "dequant": dequantize(codes, step, zero),
            "dequant at once": fake_quantize(w, step, 0, high, zero),
        }[what]

    for one in (what, "dequant at once") if what == "dequant" else (what,):
        agrees(partial(grid, one), expected)


@pytest.mark.cases(r"symmetric/(?P<bits>\d+)/(?P<what>\w+)")
def test_symmetric_grids(values, agrees, bits, what):
    w = values.tensor("in/w")
    expected = values[f"symmetric/{bits}/{what}"]

    def grid():
        step, (_, high) = symmetric_grid(w, int(bits)), integer_range(int(bits))
        codes = nearest_codes(w, step, -high, high)
        return {"scale_multiplier": 1 / step, "q": codes, "dequant": dequantize(codes, step)}[what]

    agrees(grid, expected)


@pytest.mark.cases(r"pow2/(?P<bits>\d+)/fwd")
def test_powers_of_two(values, agrees, bits):
    agrees(lambda: power_of_two(values.tensor("in/w"), int(bits)), values[f"pow2/{bits}/fwd"])


@pytest.mark.cases(r"pow2/(?P<bits>\d+)/n1_n2")
def test_the_range_of_powers_of_two(values, agrees, bits):
    w, expected = values.tensor("in/w"), values[f"pow2/{bits}/n1_n2"]
    agrees(lambda: torch.tensor(power_range(w, int(bits))), expected, rtol=0, atol=0)


@pytest.mark.cases(r"pow2/(?P<bits>\d+)/fwd")
def test_powers_of_two_pass_the_gradient_on(values, agrees, bits):
    w, upstream = values.leaf("in/w"), values.tensor("in/gw")
    # Where there are no levels, there is no gradient to pass.
    expected = values["in/gw"] + 0 * values[f"pow2/{bits}/fwd"]
    agrees(
        lambda: torch.autograd.grad(power_of_two(w, int(bits)), w, upstream)[0],
        expected,
        rtol=0,
        atol=0,
    )


def least_gone(share, **scores):
    """Masks after a share of all units, those of the least scores, have gone."""
    masks = {name: torch.ones_like(score) for name, score in scores.items()}
    gone = round(float(share) * sum(score.numel() for score in scores.values()))
    return select(scores, masks, gone, least=0)[0]


@pytest.mark.cases(r"prune/l1_unstructured_(?P<share>[\d.]+)")
def test_the_smallest_weights_go(values, share):
    expected, w = values[f"prune/l1_unstructured_{share}"], values.tensor("prune/w")
    mask = least_gone(share, w=w.abs().flatten())["w"]
    np.testing.assert_array_equal(mask.view(expected.shape), expected)


@pytest.mark.cases(r"prune/global_(?P<share>[\d.]+)/(?P<layer>\w+)")
def test_the_smallest_weights_of_all_layers_go(values, share, layer):
    expected = values[f"prune/global_{share}/{layer}"]
    pattern = rf"prune/(?:global_{re.escape(share)}/)?([a-z]+)"
    layers = dict.fromkeys(match[1] for key in values if (match := re.fullmatch(pattern, key)))
    sizes = {name: values.tensor(f"prune/{name}").abs().flatten() for name in layers}
    np.testing.assert_array_equal(least_gone(share, **sizes)[layer].view(expected.shape), expected)


@pytest.mark.cases(r"prune/ln_(?P<part>filters|inchannels)_(?P<share>[\d.]+?)(?:_n(?P<power>\d+))?")
def test_the_smallest_filters_and_channels_go(values, part, share, power):
    key = f"prune/ln_{part}_{share}" + (f"_n{power}" if power else "")
    axis = ["filters", "inchannels"].index(part)
    expected = values[key].swapaxes(0, axis)
    expected = expected.reshape(len(expected), -1)
    scores = magnitude(values.tensor("prune/w").transpose(0, axis), int(power or 2))
    mask = least_gone(share, units=scores)["units"][:, None].expand(expected.shape)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.cases(r"kd/T(?P<temperature>[\d.]+)/(?P<what>\w+)")
def test_soft_targets(values, agrees, temperature, what):
    student, teacher, y = values.leaf("kd/student"), values.tensor("kd/teacher"), values["kd/y"]

    def soft():
        divergence = kd_loss(student, teacher, float(temperature))
        loss = (F.cross_entropy(student, torch.tensor(y)) + divergence) / 2
        if what == "grad":
            return torch.autograd.grad(loss, student)[0]
        return {"kl_times_T2": divergence, "loss_half_half": loss}[what]

    agrees(soft, values[f"kd/T{temperature}/{what}"])


COUNTS = (
    "counts/params__macs_conv_linear__macs_fvcore_conv_linear__macs_ptflops_all__params_conv__"
    "buffers"
)
OURS = {
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v3_large": models.mobilenet_v3,
    "mobilenet_v3_small": partial(models.mobilenet_v3, size="small"),
}


@pytest.mark.cases(r"counts/(?P<columns>params__\w+)")
def test_counts(values, columns):
    """Of torchvision's networks, and of ours of the same name."""
    table = values[f"counts/{columns}"].tolist()
    for row, name in zip(table, values["counts/names"].tolist(), strict=True):
        expected = dict(zip(columns.split("__"), row, strict=True))
        name, side = name.split("@")
        with torch.device("meta"):
            networks = [torchvision.models.get_model(name, weights=None)]
            networks += [OURS[name](1000)] if name in OURS else []
            for network in networks:
                macs = measure.macs(network, (3, int(side), int(side)))
                convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
                counted = {
                    "params": measure.parameters(network),
                    "macs_conv_linear": macs,
                    "macs_fvcore_conv_linear": macs,
                    "params_conv": sum(map(measure.parameters, convolutions)),
                    "buffers": sum(buffer.numel() for buffer in network.buffers()),
                }
                # ptflops counts norms, activations and pooling, too.
                assert expected.get("macs_ptflops_all", macs + 1) > macs
                for column in expected.keys() - {"macs_ptflops_all"}:
                    assert counted[column] == expected[column], (name, column)


@pytest.mark.sample
def test_the_rule_of_ternary_weights_is_nearly_the_best(values):
    best, rule = values["twn/optimal/sq_error"], values["twn/tensor/sq_error"]
    assert best < rule < 1.01 * best


@pytest.mark.sample
def test_published_counts(values):
    assert dict(zip(values["counts/names"], values[COUNTS][:, :2].tolist(), strict=True)) == {
        "resnet18@224": [11_689_512, 1_814_073_344],
        "resnet50@224": [25_557_032, 4_089_184_256],
        "resnet101@224": [44_549_160, 7_801_405_440],
        "mobilenet_v3_large@224": [5_483_032, 216_589_760],
        "mobilenet_v3_small@224": [2_542_856, 56_510_400],
        "densenet121@224": [7_978_856, 2_834_161_664],
        "densenet201@224": [20_013_928, 4_291_365_888],
    }


# Pruning: schedules, groups, gates and noise.


@pytest.mark.cases(r"prune/(?P<kind>l1_unstructured|global)_(?P<share>[\d.]+)(?:/(?P<layer>\w+))?")
def test_masks_close_what_pytorch_prunes(values, kind, share, layer):
    names = re.compile(rf"prune/{kind}_{re.escape(share)}(?:/(\w+))?")
    layers = [match[1] or "w" for key in values if (match := names.fullmatch(key))]
    sizes = {name: values.tensor(f"prune/{name}").abs() for name in layers}
    masks = sparse.keep_largest(sizes, float(share), "global" if layer else "layer", least=0)
    expected = values[f"prune/{kind}_{share}" + (f"/{layer}" if layer else "")]
    np.testing.assert_array_equal(masks[layer or "w"], expected)


@pytest.mark.cases(r"prune/ln_(?P<part>filters|inchannels)_(?P<share>[\d.]+?)(?:_n(?P<power>\d+))?")
def test_masks_close_the_filters_that_pytorch_prunes(values, part, share, power):
    w, axis = values.tensor("prune/w"), ["filters", "inchannels"].index(part)
    scores = {"w": magnitude(w.transpose(0, axis), int(power or 2))}
    units = structured.channel_masks(scores, float(share), least=0)["w"]
    expected = values[f"prune/ln_{part}_{share}" + (f"_n{power}" if power else "")]
    np.testing.assert_array_equal(structured.scaled(torch.ones_like(w), units, axis), expected)


@pytest.mark.cases(r"agp/(?P<case>\w+)/sparsity")
def test_the_gradual_schedule(values, agrees, case):
    start, end, begin, times, every = values[f"agp/{case}/si_sf_t0_n_dt"].tolist()
    expected = values[f"agp/{case}/sparsity"]
    plan = (start, end, begin, int(times), every)
    steps = [begin + place * every for place in range(len(expected))]
    agrees(lambda: [sparse.gradual_sparsity(t, *plan) for t in steps], expected)


@pytest.mark.cases(r"group_lasso/(?P<kind>filters|channels)/(?P<what>(?!prox_lambda)\w+)")
def test_group_lasso(values, agrees, kind, what):
    w, dim = values.leaf("prune/w"), ["filters", "channels"].index(kind)
    functions = {
        "norms": lambda: structured.group_norms(w, dim),
        "penalty": lambda: structured.group_lasso(w, dim),
        "penalty_sqrt_size": lambda: structured.group_lasso(w, dim, by_size=True),
        "grad": lambda: torch.autograd.grad(structured.group_lasso(w, dim), w)[0],
        "prox": lambda: structured.prox_group_lasso(w, threshold, dim),
    }
    threshold = values[f"group_lasso/{kind}/prox_lambda"].item()
    agrees(functions[what], values[f"group_lasso/{kind}/{what}"])


@pytest.mark.cases(r"psp/(?P<what>w_eff|grad_\w+)")
def test_structure_scales(values, agrees, what):
    w, alpha = values.leaf("prune/w"), values.leaf("psp/alpha")
    upstream, eps = values.tensor("psp/upstream"), values["psp/eps"].item()
    agrees(
        lambda: forward_or_gradient(
            {"w_eff": "fwd"}.get(what, what),
            lambda w, alpha: structured.scaled(w, structured.dead_zone(alpha, eps)),
            upstream,
            grad_w=w,
            grad_alpha=alpha,
        ),
        values[f"psp/{what}"],
    )


def test_the_divergence_of_variational_dropout(values, agrees):
    agrees(lambda: sparse.svdo_kl(values.tensor("svdo/log_alpha")), values["svdo/kl"])


@pytest.mark.cases(r"l0/(?P<what>gate_\w+|prob_nonzero)")
def test_hard_concrete_gates(values, agrees, what):
    log_alpha, u = values.tensor("l0/log_alpha"), values.tensor("l0/u")
    functions = {
        "gate_sample": lambda: structured.hard_concrete(log_alpha, u),
        "prob_nonzero": lambda: structured.hard_concrete_open(log_alpha),
        "gate_deterministic": lambda: structured.hard_concrete_mean(log_alpha),
    }
    agrees(functions[what], values[f"l0/{what}"])


# ---------------------------------------------------------------- structured layers


@pytest.mark.cases(r"svd/singular_(?P<what>values)")
def test_singular_values(values, agrees, what):
    layer = linear_of(values.tensor("svd/w"))
    agrees(lambda: LowRankLinear.spectra(layer)[0], values[f"svd/singular_{what}"])


@pytest.mark.cases(r"svd/(?P<what>approx|frob_error)_rank(?P<rank>\d+)")
def test_low_rank(values, agrees, what, rank):
    w, rank = values.tensor("svd/w"), int(rank)

    def found():
        layer = LowRankLinear.from_linear(linear_of(w), rank)
        if what == "approx":
            return layer.dense().weight
        (spectrum,) = LowRankLinear.spectra(linear_of(w))
        error = torch.linalg.norm(w - layer.dense().weight)
        torch.testing.assert_close(truncation_error(spectrum, rank), error)
        return error

    key = f"svd/{what}_rank{rank}"
    agrees(found, values[key])


@pytest.mark.cases(r"tucker2/(?P<what>hosvd_approx|conv_out_approx)")
def test_tucker2(values, agrees, what):
    w, x = values.tensor("tucker2/w"), values.tensor("tucker2/x")
    ranks = values["tucker2/ranks"].tolist()

    def found():
        layer = Tucker2Conv2d.from_conv(conv_of(w), *ranks)
        return layer.dense().weight if what == "hosvd_approx" else layer(x)

    agrees(found, values[f"tucker2/{what}"])


@pytest.mark.cases(r"tt/(?P<what>approx|n_params)")
def test_tensor_train(values, agrees, what):
    w, rank = values.tensor("tt/w"), int(values["tt/max_rank"][0])
    outs, ins = (tuple(values[f"tt/{side}_modes"].tolist()) for side in ("out", "in"))

    def found():
        layer = TTLinear.from_linear(linear_of(w), rank, ins, outs)
        return layer.dense().weight if what == "approx" else [measure.parameters(layer)]

    agrees(found, values[f"tt/{what}"])


@pytest.mark.cases(r"circulant/(?P<what>y)")
def test_circulant(values, agrees, what):
    column, x = values.tensor("circulant/c_first_column"), values.tensor("circulant/x")
    expected = values[f"circulant/{what}"]
    agrees(lambda: circulant_product(column, x), expected)
    agrees(lambda: x @ circulant_matrix(column[None, None]).T, expected)


@pytest.mark.cases(r"share/k(?P<k>\d+)/(?P<what>\w+)")
def test_code_books(values, agrees, k, what):
    w, upstream, k = values.tensor("share/w"), values.tensor("share/grad"), int(k)

    def found():
        if what == "init":
            return start_centroids(w, k)
        layer = CodebookLinear.from_linear(linear_of(w[None]), k)
        if what == "centroid_grad":
            return torch.autograd.grad(layer.looked_up()[0], layer.centroids, upstream)[0]
        return {"centroids": layer.centroids, "labels": layer.labels[0]}[what]

    agrees(found, values[f"share/k{k}/{what}"])


@pytest.mark.cases(r"dwsep/(?P<what>y|equivalent_dense_kernel)")
def test_depthwise_separable(values, agrees, what):
    x, dw, pw = (values.tensor(f"dwsep/{name}") for name in ("x", "dw", "pw"))

    def found():
        kernel = separable_kernel(dw, pw)
        if what == "equivalent_dense_kernel":
            return kernel
        # The dense convolution, and the separable one that is found from it, say the same.
        layer = SeparableConv2d.from_conv(conv_of(kernel))
        torch.testing.assert_close(layer(x), conv_of(kernel)(x))
        return layer(x)

    agrees(found, values[f"dwsep/{what}"])


def linear_of(weight):
    """A linear layer without bias."""
    layer = nn.Linear(weight.shape[1], len(weight), bias=False, dtype=weight.dtype)
    layer.weight.data = weight
    return layer


def conv_of(weight):
    """A convolution without bias that keeps the size of its images."""
    outputs, inputs, *kernel = weight.shape
    layer = nn.Conv2d(inputs, outputs, kernel, padding="same", bias=False, dtype=weight.dtype)
    layer.weight.data = weight
    return layer


@pytest.mark.cases(r"prob_ternary/(?P<what>(?!logit_|x$)\S+)")
def test_distributions_of_ternary_weights(values, agrees, what):
    logits = [values.tensor(f"prob_ternary/logit_{name}") for name in ("zero", "plus")]
    expected = values[f"prob_ternary/{what}"]

    def found():
        out, features = logits[0].shape
        layer = probabilistic.TernaryDistributionLinear(features, out, bias=False).double()
        layer.logit_zero.data, layer.logit_plus.data = logits
        layer.scale.fill_(1.0)
        if what.startswith("kl_prior0_"):
            prior = float(what.rpartition("_")[2])
            return layer.kl(1 / 3 if prior == 0.33 else prior)
        if what in ("mean", "var"):
            return layer.moments[what == "var"]
        if what == "p_minus_zero_plus":
            return probabilistic.ternary_probabilities(*logits)
        if what == "map":
            return layer.map_weights()
        preactivation = layer.distribution(values.tensor("prob_ternary/x"))
        if what == "sign_activation_prob_plus":
            return probabilistic.sign_probability(*preactivation)
        return preactivation[["preact_mean", "preact_var"].index(what)]

    agrees(found, expected)
