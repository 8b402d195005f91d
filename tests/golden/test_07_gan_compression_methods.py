"""GAN compression: losses, distillation, kernel alignment, objectives, distances, learning rates.

Numbers come from the official code in float64; stored activations are float32.
"""

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import gan
from smallnets.gan.compression import judged_together
from smallnets.gan.networks import (
    MUNITDiscriminator,
    PatchDiscriminator,
    SPADEDiscriminator,
)
from smallnets.measure.frechet import fid
from smallnets.measure.segmentation import segmentation

FAMILIES = ("distill/", "ka/", "gan/", "spadeloss/", "obj/", "fid/", "miou/", "lr/")
TOLERANCE = (1e-9, 1e-9)
STORED = (1e-6, 2e-6)  # of what was stored as float32


@pytest.fixture(autouse=True)
def _double():
    """Networks and inputs are float64 here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def leaf(values, key):
    return values.tensor(key).double().requires_grad_()


def tolerance(array):
    return STORED if array.dtype == np.float32 else TOLERANCE


def gradient(loss, of):
    """d loss / d tensor, for `agrees`."""
    return lambda: torch.autograd.grad(loss, of, retain_graph=True)[0]


def load(network, values, prefix):
    """A flat vector of weights into a network, by the names of the official code."""
    flat, place, state = values.tensor(f"{prefix}#flat").double(), 0, {}
    for name, shape in zip(values[f"{prefix}#names"], values[f"{prefix}#shapes"], strict=True):
        sizes = [int(side) for side in str(shape).split("x")]
        count = int(np.prod(sizes))
        name = str(name).replace("weight_orig", "parametrizations.weight.original")
        for part in "uv":
            name = name.replace(f"weight_{part}", f"parametrizations.weight.0._{part}")
        state[name] = flat[place : place + count].view(sizes)
        place += count
    assert place == len(flat)
    network.load_state_dict(state)
    return network.eval()


def widths(values, prefix):
    """Shapes of a network's first weights: (ndf, inputs, layers)."""
    shapes = [str(one).split("x") for one in values[f"{prefix}#shapes"]]
    weights = [one for one in shapes if len(one) == 4]
    return int(weights[0][0]), int(weights[0][1]), weights


@pytest.mark.cases(r"distill/(?P<total>total)")
def test_distillation_of_features(values, agrees, total):
    count = len(values["distill/per_layer"])
    layers = range(count)
    student = [leaf(values, f"distill/S/{i}") for i in layers]
    teacher = [values.tensor(f"distill/T/{i}").double() for i in layers]
    wide = [values[f"distill/A{i}.weight"].shape[1] for i in layers]
    maps = gan.FeatureMaps(wide, [one.shape[1] for one in teacher])
    for i, one in enumerate(maps.maps):
        one.weight.data = values.tensor(f"distill/A{i}.weight").double()
        one.bias.data = values.tensor(f"distill/A{i}.bias").double()
    found, per_layer = maps(student, teacher)
    loss = float(values["distill/lambda"]) * found
    agrees(lambda: per_layer, values["distill/per_layer"], 2e-7, 2e-7)
    agrees(lambda: loss, values[f"distill/{total}"], 2e-7, 2e-7)
    for i in layers:
        for key, of in (
            (f"grad_S/{i}", student[i]),
            (f"grad_A{i}.weight", maps.maps[i].weight),
            (f"grad_A{i}.bias", maps.maps[i].bias),
        ):
            if f"distill/{key}" in values:
                agrees(gradient(loss, of), values[f"distill/{key}"], 1e-6, 2e-6)


@pytest.mark.cases(r"ka/(?P<case>\d+)/value")
def test_kernel_alignment(values, agrees, case):
    x, y = leaf(values, f"ka/{case}/X"), values.tensor(f"ka/{case}/Y").double()
    found = gan.kernel_alignment(x, y)
    agrees(lambda: found, values[f"ka/{case}/value"], *TOLERANCE)
    agrees(gradient(found, x), values[f"ka/{case}/grad_X"], *TOLERANCE)


@pytest.mark.cases(r"gan/(?P<mode>(?!multi)\w+)/(?P<side>D_real|D_fake|G)")
def test_adversarial_losses(values, agrees, mode, side):
    x = leaf(values, "gan/pred")
    found = gan.gan_loss(x, mode, real=side != "D_fake", for_discriminator=side != "G")
    agrees(lambda: found, values[f"gan/{mode}/{side}"], *TOLERANCE)
    agrees(gradient(found, x), values[f"gan/{mode}/{side}/grad"], *TOLERANCE)


@pytest.mark.cases(r"gan/multi/(?P<mode>[a-z]+)_(?P<side>D_real|D_fake|G)")
def test_losses_of_several_scales(values, agrees, mode, side):
    scales = [one.double() for _, one in sorted(values.under("gan/multi/last/").items())]
    for answer in (scales, [[torch.full((1,), torch.nan), one] for one in scales]):
        found = gan.gan_loss(answer, mode, real=side != "D_fake", for_discriminator=side != "G")
        agrees(lambda found=found: found, values[f"gan/multi/{mode}_{side}"], *TOLERANCE)


@pytest.mark.cases(r"spadeloss/(?P<key>grad_fake)")
def test_objective_of_gaugan(values, agrees, key):
    a = values.tensor("spadeloss/sem").double()
    fake, real = leaf(values, "spadeloss/fake"), values.tensor("spadeloss/real").double()
    ndf, inputs, weights = widths(values, "disc/multi")
    scales = sum("model0.0.weight" in str(name) for name in values["disc/multi#names"])
    layers = len(weights) // scales - 1
    judge = load(SPADEDiscriminator(inputs, ndf, layers, scales), values, "disc/multi")
    ask = gan.SPADEObjective(perceptual=0, distill=0)
    ours, theirs = judged_together(judge, a, fake, real)
    terms = gan.spade_terms(ours, theirs, ask)
    agrees(lambda: terms["G_gan"], values["spadeloss/G_gan"], *TOLERANCE)
    agrees(lambda: terms["G_matching"], values["spadeloss/G_feat"], *TOLERANCE)
    wanted = values[f"spadeloss/{key}"]
    agrees(gradient(terms["G"], fake), wanted, *tolerance(wanted))
    judged = gan.discriminator_terms(ours, theirs, ask.mode, share=1.0)
    agrees(lambda: judged["D"], values["spadeloss/loss_D"], *TOLERANCE)


@pytest.mark.cases(r"obj/(?P<kind>paired|unpaired)/losses_Dfake_Dreal_D_Ggan_Grecon_Gdistill_G")
def test_objective_of_resnets(values, agrees, kind):
    at = f"obj/{kind}"
    recon, distill, weight = values[f"{at}/lambdas_recon_distill_gan"].tolist()
    mode = "hinge" if kind == "paired" else "lsgan"
    ask = gan.Objective(mode, gan=weight, recon=recon, distill=distill)
    a, b, teacher = (
        values.tensor(f"{at}/{name}").double() for name in ("real_A", "real_B", "Tfake_B")
    )
    image = leaf(values, f"{at}/Sfake_B")
    ndf, inputs, weights = widths(values, f"{at}/D")
    judge = load(PatchDiscriminator(inputs, ndf, len(weights) - 2), values, f"{at}/D")
    game = gan.Compression(
        nn.Identity(), judge, nn.Identity(), gan.KernelAlignment(), ask=ask,
        paired=kind == "paired",
    )  # fmt: skip
    answer = judge(game.seen(a, image))
    judged = gan.discriminator_terms(answer, judge(game.seen(a, b)), mode)
    target = b if kind == "paired" else teacher
    raw = torch.tensor(float(values[f"{at}/raw_distill"]))
    terms = judged | gan.student_terms(answer, image, target, raw, ask)
    names = ("D_fake", "D_real", "D", "G_gan", "G_recon", "G_distill", "G")
    found = torch.stack([terms[name] for name in names])
    # the weight 0.01 of the official code is a double, the stored one may be single
    agrees(lambda: found, values[f"{at}/losses_Dfake_Dreal_D_Ggan_Grecon_Gdistill_G"], *TOLERANCE)
    wanted = values[f"{at}/grad_Sfake"]
    agrees(gradient(terms["G"], image), wanted, *STORED)
    first, last = (judge.get_parameter(name) for name in ("model.0.weight", "model.11.weight"))
    agrees(gradient(terms["D"], first), values[f"{at}/grad_D_first_weight"], *TOLERANCE)
    agrees(gradient(terms["D"], last), values[f"{at}/grad_D_last_weight"], *TOLERANCE)


@pytest.mark.cases(r"obj/munit/(?P<key>losses_Dfake_Dreal_D_Grecx_Grecc_Ggan_G)")
def test_objective_of_munit(values, agrees, key):
    at = "obj/munit"
    image, content = leaf(values, f"{at}/Sfake"), values.tensor(f"{at}/c_student").double()
    wanted, theirs, real, mine, style = (
        values.tensor(f"{at}/{name}").double()
        for name in ("Tfake", "c_teacher", "real_B", "s_student", "s_teacher")
    )
    shape = [int(one) for one in str(values[f"{at}/A#shapes"][0]).split("x")]
    maps = gan.FeatureMaps([shape[1]], [shape[0]])
    load(maps.maps[0], values, f"{at}/A")
    ndf, inputs, weights = widths(values, f"{at}/D")
    names = [str(one) for one in values[f"{at}/D#names"]]
    scales = len({name.split(".")[1] for name in names})
    judge = MUNITDiscriminator(inputs, ndf, len(weights) // scales - 1, scales)
    load(judge, values, f"{at}/D")
    answer = judge(image)
    distance = maps([content], [theirs], absolute=True)[0]
    styles = (mine, style) if bool(values[f"{at}/need_style_encoder"]) else None
    terms = gan.munit_terms(answer, image, wanted, distance, styles, gan.MUNITObjective())
    terms |= gan.discriminator_terms(answer, judge(real), "lsgan", share=1.0)
    found = torch.stack(
        [terms[n] for n in ("D_fake", "D_real", "D", "G_image", "G_content", "G_gan", "G")]
    )
    agrees(lambda: found, values[f"{at}/{key}"], *TOLERANCE)
    agrees(lambda: terms["G_style"], values[f"{at}/G_rec_s"], *TOLERANCE)
    agrees(gradient(terms["G"], image), values[f"{at}/grad_Sfake"], *STORED)


@pytest.mark.cases(r"fid/(?P<case>\w+)/value")
def test_frechet_distance(values, agrees, case):
    a, b = (values.tensor(f"fid/{case}/{name}") for name in "ab")
    singular = min(len(a), len(b)) <= a.shape[1]
    agrees(lambda: fid(a, b), values[f"fid/{case}/value"], 1e-6, 1e-5 if singular else 1e-6)


@pytest.mark.cases(r"miou/(?P<key>value)")
def test_mean_iou(values, agrees, key):
    found = segmentation(
        values.tensor("miou/pred"), values.tensor("miou/label"), int(values["miou/num_classes"])
    )
    agrees(lambda: found.confusion, values["miou/hist"])
    agrees(lambda: found.iou, values["miou/iou_percent"], *TOLERANCE)
    agrees(lambda: round(found.mean_iou, 2), values[f"miou/{key}"], *TOLERANCE)


@pytest.mark.cases(r"lr/(?P<key>values)")
def test_linear_policy(values, agrees, key):
    epochs, decay, lr = values["lr/nepochs_decay_lr0"].tolist()
    training = gan.GANTraining(epochs=int(epochs), decay_epochs=int(decay), lr=lr)
    found = [lr * training.factor(epoch, 0) for epoch in range(len(values[f"lr/{key}"]))]
    agrees(lambda: found, values[f"lr/{key}"], 1e-12, 1e-15)
