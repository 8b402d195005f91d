"""Memory-free replay: BatchNorm statistics, generator, losses of the classifier, head, metrics."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.synthesize import replay as r

TERMS = ("loss", "one_hot", "balance", "activation", "variation", "bn", "diversity")


@pytest.mark.cases(r"hook_(?P<what>loss|grad)")
def test_batch_norm_statistics(values, agrees, what):
    x = values.leaf("hook_x")
    mean, var = values.tensor("hook_running_mean"), values.tensor("hook_running_var")
    stored = r.BNStatistics("bn", mean, var)

    def found():
        loss = r.bn_norm_loss([x], [stored])
        return loss if what == "loss" else torch.autograd.grad(loss, x)[0]

    agrees(found, values[f"hook_{what}"])


class Classifier(nn.Sequential):
    """conv, bn, ReLU, conv with stride 2, bn, ReLU, mean, linear; sizes from the weights."""

    def __init__(self, state):
        parts = {}
        for i in sorted(int(k[4:-7]) for k in state if re.fullmatch(r"conv\d+\.weight", k)):
            out, inputs, side, _ = state[f"conv{i}.weight"].shape
            parts[f"conv{i}"] = nn.Conv2d(
                inputs, out, side, 1 if i == 1 else 2, padding=side // 2, bias=False
            )
            parts[f"bn{i}"] = nn.BatchNorm2d(out)
            parts[f"relu{i}"] = nn.ReLU()
        out, inputs = state["linear.weight"].shape
        parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
        parts["linear"] = nn.Linear(inputs, out)
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.double().load_state_dict(state, strict=False)
        self.eval().requires_grad_(False)


class Linear(nn.Module):
    """z -> linear -> images -> BatchNorm without scale and shift."""

    def __init__(self, weight, bias, shape):
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0]).to(weight)
        self.linear.load_state_dict({"weight": weight, "bias": bias})
        self.shape = shape
        self.norm = nn.BatchNorm2d(shape[0], affine=False).to(weight)

    def forward(self, z):
        return self.norm(self.linear(z).view(-1, *self.shape))


def trained(values, mode):
    """What the steps of the official trainer give: terms, images, their first gradient, bias."""
    weights = dict(zip(
        ("one_hot", "balance", "activation", "variation", "bn", "diversity"),
        values["gen_weights_oh_ie_a_tv_bn_kl"].tolist(), strict=True,
    ))  # fmt: skip
    if mode == "base":
        weights["bn"] = 0.0
    if mode != "bn_kl_image":
        weights["diversity"] = 0.0
    latents = values.tensor("gen_z")
    first, second = (values.tensor(f"gen_kl_{one}_half_index") for one in ("first", "second"))
    shape = values["gen_x0"].shape
    settings = r.GeneratorSettings(
        weights=r.GeneratorWeights(**weights), batch=latents.shape[1], pairs=first.shape[1]
    )
    generator = Linear(values.tensor("gen_w0"), values.tensor("gen_b0"), shape[1:]).train()
    shown = []
    generator.register_forward_hook(lambda *a: shown.append(a[2]))
    objective = r.GeneratorObjective(
        Classifier(values.under("cls.")), int(values["gen_old_classes"]), settings
    )
    optimizer = torch.optim.Adam(generator.parameters(), float(values["gen_lr"]))
    rows = []
    for z, *pairs in zip(latents, first, second, strict=True):
        terms = objective.terms(generator, z, pairs=tuple(pairs))
        shown[-1].retain_grad()
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        zero = torch.zeros((), dtype=z.dtype)
        rows.append(torch.stack([terms.get(name, zero).detach() for name in TERMS]))
    return torch.stack(rows), shown[0], generator.linear.bias


@pytest.mark.cases(r"gen_(?P<mode>\w+)_(?P<what>total_oh_ie_a_tv_bn_kl|dx0|b_end)")
def test_training_of_a_generator(values, agrees, mode, what):
    def found():
        rows, images, bias = trained(values, mode)
        return {"total_oh_ie_a_tv_bn_kl": rows, "dx0": images.grad, "b_end": bias}[what]

    agrees(found, values[f"gen_{mode}_{what}"], 1e-9, 1e-11)


@pytest.mark.cases(r"gen_(?P<what>x0)")
def test_images_of_the_first_step(values, agrees, what):
    agrees(lambda: trained(values, "base")[1], values[f"gen_{what}"])


NAMES = {"gnkd_ncecut": "mfgr"}


def supervised(values, variant, weighting):
    """Terms of a variant, its weights' alpha, and the logits that take gradients."""
    n_old, n_new, _, step = values["cl_old_new_first_step"].tolist()
    method = r.METHODS[NAMES.get(variant, variant)]
    new, gen = values.leaf("cl_logits_new"), values.leaf("cl_logits_gen")
    rule = "classes" if variant in ("gnkd_ncecut", "lwf") else "steps"
    alpha = r.balance_weight(n_old, n_new, rule, step)
    if weighting == "fixed":
        weights = r.TermWeights(*values["cl_fixed_weights_oce_nce_okd_nkd"].tolist())
    else:
        weights = r.term_weights(method, alpha)
    terms = r.classifier_terms(
        method, new, values.tensor("cl_targets"), n_old, weights, 2.0,
        old_on_new=values.tensor("cl_ref_logits_new"), replayed=gen,
        old_on_replayed=values.tensor("cl_ref_logits_gen"),
    )  # fmt: skip
    return terms, alpha, {"dnew": new, "dgen": gen}


@pytest.mark.cases(
    r"cl_(?P<variant>\w+)_(?P<weighting>adaptive|fixed)_(?P<what>loss|dnew|dgen)",
)
def test_loss_and_gradients_of_every_variant(values, agrees, variant, weighting, what):
    def found():
        terms, _, leaves = supervised(values, variant, weighting)
        if what == "loss":
            return terms["loss"]
        (gradient,) = torch.autograd.grad(terms["loss"], leaves[what], allow_unused=True)
        return torch.zeros_like(leaves[what]) if gradient is None else gradient

    agrees(found, values[f"cl_{variant}_{weighting}_{what}"])


PARTS = {
    "loss_cls_new": "new_ce", "loss_cls_old": "old_ce", "loss_distill_gen": "old_kd",
    "loss_distill_new": "new_kd",
}  # fmt: skip


@pytest.mark.cases(r"cl_(?P<variant>\w+)_adaptive_(?P<what>loss_\w+|alpha)")
def test_single_terms_of_every_variant(values, agrees, variant, what):
    def found():
        terms, alpha, _ = supervised(values, variant, "adaptive")
        return alpha if what == "alpha" else terms[PARTS[what]]

    agrees(found, values[f"cl_{variant}_adaptive_{what}"])


@pytest.mark.cases(r"grow_(?P<what>new_weight)")
def test_growth_of_a_head(values, agrees, what):
    old, new = values.tensor("grow_old_weight"), values[f"grow_{what}"]
    n_old, n = int(values["grow_n_old"]), int(values["grow_out_features"])
    model = nn.Sequential(nn.Linear(old.shape[1], n_old)).double()
    model[0].weight.data = old
    grown = r.grow_head(model, n - n_old)
    assert grown[0].out_features == n == len(new)
    agrees(lambda: grown[0].weight[:n_old], new[:n_old], 0, 0)
    bound = new.shape[1] ** -0.5
    for rows in (grown[0].weight[n_old:].detach().numpy(), new[n_old:]):
        assert 0 < np.abs(rows).max() <= bound


METRICS = {
    "incremental_accuracy": r.step_accuracy,
    "average_incremental_accuracy": r.average_incremental_accuracy,
    "last_accuracy": r.last_accuracy,
    "forgetting_per_task": lambda matrix, sizes: r.forgetting_per_task(matrix),
    "forgetting": lambda matrix, sizes: r.forgetting(matrix),
}


@pytest.mark.cases(
    r"met_(?P<what>incremental_accuracy|average_incremental_accuracy|last_accuracy"
    r"|forgetting_per_task|forgetting)"
)
def test_metrics(values, agrees, what):
    matrix, sizes = values["met_matrix"], values["met_classes_per_task"].tolist()
    agrees(lambda: METRICS[what](matrix, sizes), values[f"met_{what}"])
