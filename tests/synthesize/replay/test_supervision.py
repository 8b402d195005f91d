"""What a new classifier learns from: gradients, limits, weights, and the table of methods."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from smallnets.synthesize import replay as r
from smallnets.synthesize.replay.dreaming import dreaming_terms, relative_balance_loss


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    n_old=st.integers(1, 5),
    n_new=st.integers(1, 4),
    temperature=st.floats(0.5, 4),
    seed=st.integers(0, 99),
)
def test_distillation(n_old, n_new, temperature, seed):
    student = (2 * normal(6, n_old + n_new, seed=seed)).requires_grad_()
    teacher = 2 * normal(6, n_old, seed=seed + 100)
    loss = r.distillation(student, teacher, n_old, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.equal(gradient[:, n_old:], torch.zeros(6, n_new, dtype=torch.float64))
    shifted = student.detach().clone()
    shifted[:, :n_old] += normal(6, 1, seed=seed)
    torch.testing.assert_close(loss, r.distillation(shifted, teacher, n_old, temperature))
    soft = (teacher / temperature).softmax(1)
    answer = (student[:, :n_old].detach() / temperature).softmax(1)
    torch.testing.assert_close(gradient[:, :n_old], (answer - soft) / temperature / 6)
    same = torch.cat([teacher + 1, student[:, n_old:].detach()], 1).requires_grad_()
    least = r.distillation(same, teacher, n_old, temperature)
    (zero,) = torch.autograd.grad(least, same)
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-12)
    torch.testing.assert_close(least, -(soft * soft.log()).sum(1).mean())  # its entropy, not 0


@given(n_old=st.integers(1, 5), n_new=st.integers(1, 4), seed=st.integers(0, 99))
def test_local_cross_entropy_knows_new_columns_alone(n_old, n_new, seed):
    student = normal(6, n_old + n_new, seed=seed).requires_grad_()
    labels = n_old + torch.arange(6) % n_new
    loss = r.local_cross_entropy(student, labels, n_old)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.equal(gradient[:, :n_old], torch.zeros(6, n_old, dtype=torch.float64))
    torch.testing.assert_close(loss, F.cross_entropy(student[:, n_old:], labels - n_old))


def test_without_old_classes_it_is_plain_training():
    logits, labels = normal(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert r.balance_weight(0, 4) == 0
    method = r.METHODS["lwf"]
    weights = r.term_weights(method, r.balance_weight(0, 4))
    assert (weights.new_ce, weights.new_kd) == (1, 0)
    torch.testing.assert_close(
        r.local_cross_entropy(logits, labels, 0), F.cross_entropy(logits, labels)
    )


def test_weights_of_old_and_new():
    assert r.balance_weight(20, 20) == r.balance_weight(20, 20, "steps", 1) == 0.5
    assert r.balance_weight(60, 20) == r.balance_weight(60, 20, "steps", 3) == 0.75
    assert r.balance_weight(6, 4) == 0.6  # groups that differ
    assert r.balance_weight(6, 4, "steps", 1) == 0.5
    assert r.term_weights(r.METHODS["mfgr"], 0.6) == r.TermWeights(0.4, 0.4, 0.6, 0.6)
    assert r.term_weights(r.METHODS["gnce"], 0.6) == r.TermWeights(0.6, 0.4, 0.6, 0.6)
    assert r.term_weights(r.METHODS["finetune"], 0.6).new_ce == 1


TERMS = {
    "mfgr": {"new_ce", "new_kd", "old_kd"},
    "gnkdcecut_ncecut": {"new_ce", "new_kd", "old_kd", "old_ce"},
    "gnkdce_nce": {"new_ce", "new_kd", "old_kd", "old_ce"},
    "gnce": {"new_ce", "old_ce"},
    "lwf": {"new_ce", "new_kd"},
    "lwf_full": {"new_ce", "new_kd"},
    "ndkd": {"new_kd"},
    "gdkd": {"old_kd"},
    "finetune": {"new_ce"},
    "joint": {"new_ce"},
    "replay_only": {"new_ce", "old_kd"},
    "noise_replay": {"new_ce", "new_kd", "old_kd"},
    "real_replay": {"new_ce", "new_kd", "old_kd"},
    "ewc": {"new_ce"},
    "mas": {"new_ce"},
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_of_every_method(name):
    method = r.METHODS[name]
    n_old, labels = 3, torch.tensor([3, 4, 3, 4])
    new, gen, old, old_gen = (normal(4, c, seed=i) for i, c in enumerate((5, 5, 3, 3)))
    weights = r.TermWeights(0.2, 0.3, 0.5, 0.7)
    terms = r.classifier_terms(
        method, new, labels, n_old, weights, old_on_new=old, replayed=gen, old_on_replayed=old_gen
    )
    assert set(terms) == {"loss", *TERMS[name]}
    total = sum(getattr(weights, key) * terms[key] for key in TERMS[name])
    torch.testing.assert_close(terms["loss"], total)
    chosen = old_gen.argmax(1)
    if name in ("gnkdce_nce", "gnce", "lwf_full", "finetune"):
        torch.testing.assert_close(terms["new_ce"], F.cross_entropy(new, labels))
    if name == "gnkdcecut_ncecut":
        torch.testing.assert_close(terms["old_ce"], F.cross_entropy(gen[:, :3], chosen))
    if name in ("gnkdce_nce", "gnce"):
        torch.testing.assert_close(terms["old_ce"], F.cross_entropy(gen, chosen))


def test_which_methods_keep_images():
    assert {name for name, one in r.METHODS.items() if not one.memory_free} == {
        "joint", "real_replay",
    }  # fmt: skip
    assert set(r.METHODS) == {*TERMS, "abd"}


def test_lwf_and_a_replay_term_make_mfgr():
    n_old, labels = 3, torch.tensor([3, 4])
    new, gen, old, old_gen = (normal(2, c, seed=i) for i, c in enumerate((5, 5, 3, 3)))
    weights = r.term_weights(r.METHODS["mfgr"], 0.6)
    given_ = {"old_on_new": old, "replayed": gen, "old_on_replayed": old_gen}
    mfgr, lwf = (
        r.classifier_terms(r.METHODS[name], new, labels, n_old, weights, **given_)
        for name in ("mfgr", "lwf")
    )
    replay = r.distillation(gen, old_gen, n_old)
    torch.testing.assert_close(mfgr["loss"], lwf["loss"] + 0.6 * replay)


def test_dreaming_moves_head_and_body_apart():
    torch.manual_seed(0)
    n_old, new = 3, 4
    head, old_head = torch.nn.Linear(6, 5).double(), torch.nn.Linear(6, 3).double()
    features = normal(7, 6).requires_grad_()
    old_features = normal(7, 6, seed=1)
    labels, replayed = torch.tensor([3, 4, 4, 3]), torch.tensor([0, 2, 1])

    def terms(mu=0.1):
        return dreaming_terms(
            head(features[:new]), features, old_features, labels, replayed, head, old_head,
            n_old, mu,
        )  # fmt: skip

    found = terms()
    (through_head,) = torch.autograd.grad(found["head"], features, allow_unused=True)
    assert through_head is None  # only the head moves
    gradient = torch.autograd.grad(found["local"], head.weight)[0]
    assert torch.equal(gradient[:n_old], torch.zeros(n_old, 6, dtype=torch.float64))
    assert torch.autograd.grad(terms()["features"], old_head.weight, allow_unused=True)[0] is None
    logits = head(features)
    targets = torch.cat([labels, replayed])
    weight = torch.tensor([0.4, 0.4, 0.4, 0.4, 0.6, 0.6, 0.6]).double()
    each = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(found["head"], (weight * each).mean())
    local = 0.4 * F.cross_entropy(logits[:new, n_old:], labels - n_old)
    torch.testing.assert_close(found["local"], local)
    gap = old_head(features) - old_head(old_features)
    torch.testing.assert_close(found["features"], gap.square().sum(1).mean() / n_old)
    torch.testing.assert_close(terms(3.0)["loss"], local + found["head"] + 3 * found["features"])


def test_balance_relative_to_the_best():
    assert float(relative_balance_loss(torch.zeros(3, 4))) == pytest.approx(0, abs=1e-6)
    one = torch.tensor([[100.0, 0, 0]] * 3)
    assert float(relative_balance_loss(one)) == pytest.approx(1, abs=1e-6)


def test_smoothness():
    assert float(r.smoothness_loss(torch.full((2, 3, 6, 6), 0.7))) == pytest.approx(0, abs=1e-10)
    board = r.checkerboard(6, 6)
    assert r.smoothness_loss(board) > 0.5
    images = normal(1, 1, 5, 5)
    filter_ = torch.exp(-(((torch.arange(5.0).double() - 2) / 2) ** 2))
    kernel = torch.outer(filter_, filter_)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    smooth = F.conv2d(padded, (kernel / kernel.sum()).view(1, 1, 5, 5))
    torch.testing.assert_close(r.smoothness_loss(images), F.mse_loss(images, smooth))


NAN = torch.tensor([[math.nan, 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: r.distillation(torch.zeros(2, 3), torch.zeros(2, 2), 2, 0.0),
            "temperature must be",
        ),
        (
            lambda: r.distillation(torch.zeros(2, 3), torch.zeros(2, 2), 0),
            "n_old must be at least 1",
        ),
        (
            lambda: r.distillation(torch.zeros(2, 3), torch.zeros(2, 3), 3),
            "n_old must be between 1 and 2",
        ),
        (
            lambda: r.distillation(torch.zeros(2, 3), torch.zeros(2, 1), 2),
            "n_old must be between 1 and 1",
        ),
        (
            lambda: r.distillation(torch.zeros(2, 3), torch.zeros(3, 2), 2),
            r"must be \(2, 2 or more\)",
        ),
        (lambda: r.distillation(NAN, torch.zeros(1, 1), 1), "student_logits must be finite"),
        (lambda: r.distillation(torch.zeros(1, 2), NAN[:, :1], 1), "teacher_logits must be finite"),
        (
            lambda: r.local_cross_entropy(torch.zeros(2, 5), torch.tensor([2, 4]), 3),
            "labels must be between 3 and 4, the classes of this task; got 2 to 4",
        ),
        (
            lambda: r.local_cross_entropy(torch.zeros(2, 5), torch.tensor([4, 4]), 5),
            "n_old must be",
        ),
        (
            lambda: r.old_cross_entropy(torch.zeros(2, 5), torch.tensor([3, 0]), 3),
            "labels must be between 0 and 2",
        ),
        (lambda: r.balance_weight(1, 0), "n_new must be at least 1; got 0"),
        (lambda: r.balance_weight(1, 1, "steps"), "step must be a whole number"),
        (lambda: r.balance_weight(1, 1, "halves"), "rule must be one of classes, steps"),
        (lambda: r.Method(new="half"), "new must be one of none, local, full"),
        (lambda: r.Method(distil_replay=True), "exactly where it replays any; got replay 'none'"),
        (lambda: r.Method(replay="noise"), "got replay 'noise' and no term"),
        (lambda: r.Method(new="none"), "a method must have at least one term; got none"),
        (lambda: r.TermWeights(1, 1, -1, 1), "old_kd must be at least 0"),
        (
            lambda: r.classifier_terms(
                r.METHODS["lwf"],
                torch.zeros(1, 3),
                torch.tensor([2]),
                2,
                r.TermWeights(1, 1, 1, 1),
            ),
            "old_on_new must be logits for this method; got None",
        ),
        (lambda: r.smoothness_loss(torch.zeros(1, 3, 2, 8)), "of 3 x 3 pixels or more"),
        (lambda: r.DreamingWeights(temperature=0), "temperature must be greater than 0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()
