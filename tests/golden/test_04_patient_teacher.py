"""Patient teachers: distances, mixing, schedules, optimiser chains, BiT networks, crops.

Arrays are grouped by the first part of their names. Images are (batch, height, width, channels).
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from smallnets import measure
from smallnets.data import Dataset
from smallnets.distill.matching import (
    agreement,
    crop_and_resize,
    ensemble_distance,
    ensemble_log_probs,
    entropy,
    evaluation_view,
    kl_distance,
    logit_distance,
    mix,
    mixing_share,
    resize_area,
    sample_inception_boxes,
)
from smallnets.models import bit_resnet, load_published
from smallnets.models.bit import standardised
from smallnets.training import TrainSettings, learning_rate, new_optimizer


def generator():
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


def nchw(images):
    """Images as the library has them, in double precision."""
    return torch.as_tensor(images).double().permute(0, 3, 1, 2)


def nhwc(images):
    """Images as the file has them."""
    return images.detach().permute(0, 2, 3, 1)


def logits(values, group, dtype=torch.float64):
    """The student's, which take a gradient, and those of all its teachers."""
    names = [f"{group}/teacher{i}" for i in ("", *range(2, len(values)))]
    teachers = [values.tensor(name).to(dtype) for name in names if name in values]
    return values.tensor(f"{group}/student").to(dtype).requires_grad_(), teachers


def slope_of_mean(distance, student):
    """Gradient of a batch's mean distance with respect to the student's logits."""
    return torch.autograd.grad(distance.mean(), student)[0]


@pytest.mark.cases(r"(?P<group>[\w.]+)/kl")
def test_divergence_and_gradient_at_every_temperature(values, agrees, group):
    student, (teacher, *_) = logits(values, group)
    temperatures = values[f"{group}/temps"].tolist()
    for tau, expected in zip(temperatures, values[f"{group}/kl"], strict=True):
        agrees(lambda t=tau: kl_distance(student, teacher, t), expected, 1e-7, 1e-9)
    for tau, expected in zip(temperatures, values[f"{group}/kl_grad_student_of_mean"], strict=True):
        agrees(
            lambda t=tau: slope_of_mean(kl_distance(student, teacher, t), student),
            expected,
            1e-6,
            1e-7,
        )


@pytest.mark.parametrize("power", [pytest.param(0, marks=pytest.mark.sample), 2])
@pytest.mark.cases(r"(?P<group>[\w.]+)/kl")
def test_divergence_in_single_precision(values, agrees, group, power):
    """The factor of the squared temperature enlarges the rounding of small divergences, too."""
    student, (teacher, *_) = logits(values, group, torch.float32)
    temperatures = values[f"{group}/temps"].tolist()
    for tau, expected in zip(temperatures, values[f"{group}/kl"], strict=True):
        atol = 1e-6 * max(1, tau) ** power
        agrees(lambda t=tau: kl_distance(student, teacher, t), expected, 2e-6, atol)


def to_mean_probability(student, teachers, tau):
    """Divergence from the mean of the teachers' tempered probabilities."""
    mean = ensemble_log_probs([teacher / tau for teacher in teachers])
    return kl_distance(student, tau * mean, tau)


@pytest.mark.cases(r"(?P<group>[\w.]+)/ens_(?P<kind>sum|probs)_kl")
def test_divergence_from_several_teachers(values, agrees, group, kind):
    student, teachers = logits(values, group)

    def distance(tau):
        if kind == "probs":
            return to_mean_probability(student, teachers, tau)
        return ensemble_distance(student, teachers, temperature=tau)

    temperatures = values[f"{group}/temps"].tolist()
    for tau, expected in zip(temperatures, values[f"{group}/ens_{kind}_kl"], strict=True):
        agrees(lambda t=tau: distance(t), expected, 1e-6, 1e-7)
    for tau, expected in zip(
        temperatures, values[f"{group}/ens_{kind}_kl_grad_of_mean"], strict=True
    ):
        agrees(lambda t=tau: slope_of_mean(distance(t), student), expected, 1e-6, 1e-7)


@pytest.mark.cases(r"(?P<group>[\w.]+)/ens_probs_kl_grad_of_mean")
def test_a_sum_over_teachers_pulls_that_much_harder_than_their_mean(values, agrees, group):
    student, teachers = logits(values, group)
    for tau, expected in zip(
        values[f"{group}/temps"].tolist(),
        values[f"{group}/ens_probs_kl_grad_of_mean"],
        strict=True,
    ):

        def pull(tau=tau):
            distance = ensemble_distance(student, teachers, temperature=tau)
            return slope_of_mean(distance, student) / len(teachers)

        agrees(pull, expected, 1e-6, 1e-7)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<group>[\w.]+)/ens_probs_kl")
def test_the_mean_of_logits_is_another_teacher(values, group):
    student, teachers = logits(values, group)
    mean = torch.stack(teachers).mean(0)
    for tau, together in zip(
        values[f"{group}/temps"].tolist(), values[f"{group}/ens_probs_kl"], strict=True
    ):
        other = kl_distance(student, mean, tau).detach().numpy()
        assert np.abs(other - together).max() > 1e-2


@pytest.mark.cases(r"(?P<group>[\w.]+)/(?P<kind>euclidean|l2|logsoftmax_euclidean)")
def test_other_distances(values, agrees, group, kind):
    student, (teacher, *_) = logits(values, group)
    agrees(lambda: logit_distance(student, teacher, kind), values[f"{group}/{kind}"], 1e-6, 1e-9)


@pytest.mark.cases(r"(?P<group>[\w.]+)/hard_ls(?P<smoothing>[\d.]+)")
def test_hard_answers(values, agrees, group, smoothing):
    student, (teacher, *_) = logits(values, group)

    def distance():
        return logit_distance(student, teacher, "hard", smoothing=float(smoothing))

    key = f"{group}/hard_ls{smoothing}"
    agrees(distance, values[key], 1e-6, 1e-9)
    agrees(lambda: slope_of_mean(distance(), student), values[f"{key}_grad_of_mean"], 1e-6, 1e-7)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<group>[\w.]+)/hard_ls(?P<smoothing>[\d.]*[1-9])")
def test_usual_smoothing_spreads_over_all_classes_and_this_over_the_others(
    values, group, smoothing
):
    student, (teacher, *_) = logits(values, group)
    usual = F.cross_entropy(
        student, teacher.argmax(1), label_smoothing=float(smoothing), reduction="none"
    )
    gap = usual.detach().numpy() - values[f"{group}/hard_ls{smoothing}"]
    assert np.abs(gap).max() > 0.01


@pytest.mark.cases(r"(?P<group>[\w.]+)/agree_k(?P<k>\d+)")
def test_agreement_within_the_first_answers(values, agrees, group, k):
    student, (teacher, *_) = logits(values, group)
    agrees(lambda: agreement(student, teacher, int(k)).long(), values[f"{group}/agree_k{k}"], 0, 0)


@pytest.mark.cases(r"(?P<group>[\w.]+)/entropy_(?P<who>student|teacher)")
def test_entropies(values, agrees, group, who):
    answers = values.tensor(f"{group}/{who}").double()
    agrees(lambda: entropy(answers), values[f"{group}/entropy_{who}"], 1e-6, 1e-9)


@pytest.mark.cases(r"(?P<group>[\w.]+)/in_(?P<what>\w+)")
def test_each_entry_is_mixed_with_the_one_before_it(values, agrees, group, what):
    """All tensors of a group, be they images, labels or two views, with the same share."""
    given, share = values.tensor(f"{group}/in_{what}").double(), float(values[f"{group}/a"])
    agrees(lambda: mix(given, share), values[f"{group}/out_{what}"], 1e-7, 1e-7)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<group>[\w.]+)/in_image")
def test_reversing_the_batch_is_another_mixture(values, group):
    """A popular re-implementation does so."""
    given, share = values[f"{group}/in_image"], values[f"{group}/a"]
    other = share * given + (1 - share) * given[::-1]
    assert share >= 0.99 or np.abs(other - values[f"{group}/out_image"]).max() > 0.01


@pytest.mark.cases(r"(?P<group>[\w.]+)/p")
def test_shares_are_drawn_from_a_folded_beta_distribution(values, group):
    alpha = float(values[f"{group}/p"])
    ours = mixing_share(alpha, 5000, generator(), per_image=True)
    assert 0.5 <= values[f"{group}/a"] <= 1
    assert ours.min() >= 0.5
    assert ours.max() <= 1
    if alpha == 0:
        assert (ours == 1).all()
    else:
        drawn = np.random.default_rng(1).beta(alpha, alpha, 5000).astype(np.float32)
        folded = np.maximum(drawn, 1 - drawn)
        assert stats.ks_2samp(ours.numpy(), folded).statistic < 0.05


@pytest.mark.cases(r"(?P<group>[\w.]+)/mult")
def test_schedules(values, agrees, group):
    total, warmup = values[f"{group}/total_warmup"].tolist()
    schedule = "linear" if "linear" in group else "cosine"
    steps = values[f"{group}/steps"].tolist()

    def multipliers():
        settings = TrainSettings(epochs=int(total), warmup_epochs=warmup, lr=1.0, schedule=schedule)
        return [learning_rate(settings, step) for step in steps]

    agrees(multipliers, values[f"{group}/mult"], 1e-6, 1e-6)


def chain(model, recipe, steps, backward):
    """Parameters by name, (steps, ...), after each step of the library's optimiser.

    Args:
        model: holds the parameters.
        recipe: highest learning rate, decay, limit of the gradient (0 is none), steps, warm-up.
        steps: how many to take.
        backward: function of the step that leaves the gradients in the parameters.
    """
    lr, decay, clip, total, warmup = recipe
    settings = TrainSettings(
        epochs=int(total), warmup_epochs=warmup, lr=lr, weight_decay=decay, optimizer="adamw",
        clip=clip or None,
    )  # fmt: skip
    optimizer = new_optimizer(model, settings)
    after = {name: [] for name, _ in model.named_parameters()}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimizer.zero_grad()
        backward(step)
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        for name, parameter in model.named_parameters():
            after[name].append(parameter.detach().clone())
    return {name: torch.stack(stages) for name, stages in after.items()}


@pytest.mark.cases(r"(?P<group>[\w.]+)/lr_wd_clip_total_warmup")
def test_parameters_after_each_step_of_the_chain(values, agrees, group):
    """Where Adam's first moment was kept in bfloat16, ours in single precision is near."""
    recipe = values[f"{group}/lr_wd_clip_total_warmup"].tolist()
    start, gradients = values.under(f"{group}/init_"), values.under(f"{group}/grads_")
    assert set(start) == set(gradients)

    def parameters():
        model = nn.ParameterDict({name: value.clone() for name, value in start.items()})

        def backward(step):
            for name, parameter in model.items():
                parameter.grad = gradients[name][step].clone()

        return chain(model, recipe, len(gradients[min(gradients)]), backward)

    tolerance = 1.5e-4 if "bf16" in group else 1e-6
    for name in start:
        agrees(lambda n=name: parameters()[n], values[f"{group}/params_{name}"], 1e-7, tolerance)


@pytest.mark.sample
def test_a_decay_that_goes_with_the_learning_rate_is_another(values):
    wrong = nn.Parameter(values.tensor("optim_f32/init_kernel"))
    lr, decay, *_ = values["optim_f32/lr_wd_clip_total_warmup"].tolist()
    optimizer = torch.optim.AdamW([wrong], lr, weight_decay=decay)
    for gradient in values.tensor("optim_f32/grads_kernel"):
        wrong.grad = gradient
        optimizer.step()
    expected = values["optim_f32/params_kernel"][-1]
    assert np.abs(wrong.detach().numpy() - expected).max() > 1e-2


@pytest.mark.cases(r"(?P<group>[\w.]+)/T_lr_wd_clip_total_warmup")
def test_steps_of_function_matching(values, agrees, group):
    temperature, *recipe = values[f"{group}/T_lr_wd_clip_total_warmup"].tolist()
    images, shares = values.tensor(f"{group}/x"), values[f"{group}/a"].tolist()
    kernel, bias = (values.tensor(f"{group}/teacher_{name}") for name in ("kernel", "bias"))

    def run():
        """The losses before each step, and the parameters after it."""
        names = ("kernel", "bias")
        student = nn.ParameterDict({n: values.tensor(f"{group}/student_{n}0") for n in names})
        losses = []

        def backward(step):
            mixed = mix(images[step], shares[step])
            ours, theirs = mixed @ student["kernel"] + student["bias"], mixed @ kernel + bias
            losses.append(kl_distance(ours, theirs, temperature).mean())
            losses[-1].backward()

        after = chain(student, recipe, len(shares), backward)
        return {"loss": torch.stack(losses)} | {f"student_{n}": after[n] for n in names}

    agrees(lambda: run()["loss"], values[f"{group}/loss"], 1e-5, 1e-12)
    for key in ("student_kernel", "student_bias"):
        agrees(lambda k=key: run()[k], values[f"{group}/{key}"], 1e-7, 1e-5)


@pytest.mark.cases(r"(?P<group>[\w.]+)/w_hwio")
def test_standardised_kernels(values, agrees, group):
    weight = values.tensor(f"{group}/w_hwio").permute(3, 2, 0, 1)
    expected = values[f"{group}/w_standardized"]
    agrees(lambda: standardised(weight).permute(2, 3, 1, 0), expected, 1e-12, 1e-12)


@pytest.mark.cases(r"(?P<group>[\w.]+)/gn_out")
def test_group_norm(values, agrees, group):
    x = nchw(values[f"{group}/x_nhwc"])
    norm = nn.GroupNorm(int(values[f"{group}/gn_groups"]), x.shape[1]).double()
    norm.weight.data = values.tensor(f"{group}/gn_scale").flatten()
    norm.bias.data = values.tensor(f"{group}/gn_bias").flatten()
    agrees(lambda: nhwc(norm(x)), values[f"{group}/gn_out"], 1e-12, 1e-12)


def published(values, group):
    """A BiT network in double precision with the arrays of the file."""
    arrays = {name: value.numpy() for name, value in values.under(f"{group}/params.").items()}
    *_, channels, _ = arrays["root_block.conv_root.kernel"].shape
    depth, width = tuple(values[f"{group}/depth"].tolist()), float(values[f"{group}/width"])
    network = bit_resnet(depth, len(arrays["head.bias"]), channels, width=width).double()
    load_published(network, arrays)
    return network


@pytest.mark.cases(r"(?P<group>[\w.]+)/depth")
def test_outputs_of_a_published_network(values, agrees, group):
    network, x = published(values, group), nchw(values[f"{group}/x_nhwc"])
    expected = values[f"{group}/logits"]
    agrees(lambda: network(x), expected, 1e-12, 1e-12)
    agrees(lambda: network[:-1](x), values[f"{group}/pre_logits"], 1e-12, 1e-12)
    stem = network[:2](x)
    found = torch.stack([stem.sum(), stem.abs().mean()])
    agrees(lambda: found, values[f"{group}/stem_sum_absmean"], 1e-12, 0)
    network.float()
    agrees(lambda: network(x.float()), expected, 1e-4, 1e-4)
    evaluated = network.eval()(x.float())
    assert torch.equal(network.train()(x.float()), evaluated)  # no statistics of the batch


def statistics(boxes):
    """What is compared of boxes (n, 4): top, left, height, width."""
    top, left, height, width = boxes.T.astype(int)
    return {"area": height * width, "aspect": width / height, "top": top, "left": left,
            "height": height, "width": width}  # fmt: skip


def distance(boxes, others, name):
    """Kolmogorov and Smirnov's, of one of the statistics of two sets of boxes."""
    return stats.ks_2samp(statistics(boxes)[name], statistics(others)[name]).statistic


@pytest.mark.cases(r"(?P<group>[\w.]+)/crop_y_x_h_w")
def test_boxes_have_the_published_distribution(values, group):
    published = values[f"{group}/crop_y_x_h_w"]
    count = len(published)
    ours = sample_inception_boxes(count, *values[f"{group}/HW"].tolist(), generator()).numpy()
    for name in statistics(ours):
        limit = 0.05 * max(1, 3000 / count) ** 0.5
        assert distance(published, ours, name) < limit, name


@pytest.mark.sample
@pytest.mark.cases(r"(?P<group>[\w.]+)/crop_y_x_h_w")
def test_the_boxes_of_torchvisions_rule_are_larger(values, group):
    published, size = values[f"{group}/crop_y_x_h_w"], values[f"{group}/HW"].tolist()
    count = len(published)
    ours = sample_inception_boxes(count, *size, generator()).numpy()
    other = sample_inception_boxes(count, *size, generator(), geometry="torchvision").numpy()
    assert distance(published, other, "area") > 0.1
    areas = [np.median(statistics(boxes)["area"]) for boxes in (ours, other)]
    assert areas[1] > 1.25 * areas[0]


def grey_levels_apart(ours, published):
    """Largest difference of an image (1, channels, height, width) from whole grey levels."""
    found = nhwc(ours)[0].numpy().astype(int)
    assert found.shape == published.shape
    return np.abs(found - published.astype(int)).max()


@pytest.mark.cases(r"(?P<group>[\w.]+)/resize_bilinear")
def test_training_crops_are_resized_without_antialiasing(values, group):
    image, expected = nchw(values[f"{group}/image"][None]), values[f"{group}/resize_bilinear"]
    whole = torch.tensor([0, 0, *image.shape[2:]])
    assert grey_levels_apart(crop_and_resize(image, whole, len(expected)), expected) <= 1


@pytest.mark.sample
@pytest.mark.cases(r"(?P<group>[\w.]+)/resize_bilinear")
def test_antialiasing_would_be_seen(values, group):
    image, expected = nchw(values[f"{group}/image"][None]), values[f"{group}/resize_bilinear"]
    other = F.interpolate(image, expected.shape[:2], mode="bilinear", antialias=True)
    assert grey_levels_apart(other, expected) > 5


@pytest.mark.cases(r"(?P<group>[\w.]+)/resize_small")
def test_evaluation_resizes_by_area(values, group):
    image, expected = nchw(values[f"{group}/image"][None]), values[f"{group}/resize_small"]
    assert grey_levels_apart(resize_area(image, *expected.shape[:2]), expected) <= 1


@pytest.mark.cases(r"(?P<group>[\w.]+)/central_crop")
def test_evaluation_takes_the_middle(values, group):
    image, expected = nchw(values[f"{group}/image"][None]), values[f"{group}/central_crop"]
    smaller, crop = values[f"{group}/small_crop"].tolist()
    assert grey_levels_apart(evaluation_view(image, crop, crop / smaller), expected) <= 1


@pytest.mark.cases(r"(?P<group>[\w.]+)/value_range")
def test_pixels_lie_between_minus_one_and_one(values, agrees, group):
    image = values.tensor(f"{group}/central_crop").permute(2, 0, 1)[None]
    half, labels = torch.full(image.shape[1:2], 0.5), torch.zeros(1, dtype=torch.int64)
    data = Dataset("crop", image, labels, image, labels, ("a",), flips=False, moments=(half, half))
    agrees(lambda: nhwc(data.normalise(image))[0], values[f"{group}/value_range"], 1e-7, 1e-6)


def test_sizes_of_published_networks(values):
    table = values["counts/depth_width_res_classes_params_macs"].tolist()
    assert len(table) > 0
    for depth, width, side, classes, parameters, macs in table:
        with torch.device("meta"):
            network = bit_resnet(depth, classes, width=width)
            assert measure.parameters(network) == parameters, (depth, width)
            assert measure.macs(network, (3, side, side)) == macs, (depth, width, side)
