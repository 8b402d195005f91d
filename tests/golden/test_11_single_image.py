"""The augmented image prior: patches, CutMix, losses, Wide ResNets, fake video, CKA, spectrograms.

Images are (height, width, channels), batches of networks and CutMix as their names say.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from smallnets import measure
from smallnets.distill import single_image as si
from smallnets.distill.single_image.geometry import inverse_matrix
from smallnets.distill.single_image.mixing import PARTNERS
from smallnets.models import wide_resnet

GREY_LEVELS = 2  # between float and PIL arithmetic, away from edges


def chw(images):
    """Pictures with the channels first."""
    return torch.as_tensor(images).movedim(-1, -3).contiguous()


@pytest.mark.cases(r"kd/(?P<path>torch|keras)_loss")
def test_divergence_and_gradient_at_every_temperature(values, agrees, path):
    dtype = torch.float64 if path == "torch" else torch.float32
    tolerance = (1e-12, 1e-12) if path == "torch" else (1e-6, 1e-6)
    student = values.tensor("kd/student").to(dtype).requires_grad_()
    teacher = values.tensor("kd/teacher").to(dtype)
    for tau, loss, grad in zip(
        values["kd/temps"].tolist(),
        values[f"kd/{path}_loss"],
        values[f"kd/{path}_grad"],
        strict=True,
    ):
        for squared in (False, True):
            factor = tau**2 if squared else 1.0

            def found(tau=tau, squared=squared, factor=factor):
                return si.distill_kl(student, teacher, tau, squared) / factor

            agrees(found, np.asarray(loss), *tolerance)
            agrees(lambda f=found: torch.autograd.grad(f(), student)[0], grad, *tolerance)


@pytest.mark.cases(r"bbox_torch/(?P<corners>x1_y1_x2_y2)")
def test_boxes_of_the_pytorch_code(values, agrees, corners):
    """Its x runs along rows."""
    rows = values["bbox_torch/size2_size3_lam_cx_cy"]

    def boxes():
        found = [
            si.cut_box((int(a), int(b)), lam, (int(cx), int(cy)), torch.zeros(1, dtype=torch.int64))
            for a, b, lam, cx, cy in rows.tolist()
        ]
        return torch.tensor([[box.y1, box.x1, box.y2, box.x2] for box in found])

    agrees(boxes, values[f"bbox_torch/{corners}"])


@pytest.mark.cases(r"cutmix_torch/(?P<result>out)")
def test_mixed_batch_of_the_pytorch_code(values, agrees, result):
    y1, x1, y2, x2 = values["cutmix_torch/x1_y1_x2_y2"].tolist()
    lam = float(values["cutmix_torch/lam"])
    box = si.CutBox(y1, y2, x1, x2, lam, values.tensor("cutmix_torch/perm"))
    x = values.tensor("cutmix_torch/x_nchw")
    agrees(lambda: si.cutmix_images(x, box=box)[0], values[f"cutmix_torch/{result}"], 0, 0)


def tensorflow_boxes(values, size, partners):
    """The boxes of the TensorFlow code, whose x runs along columns and whose lambda is float32."""
    return [
        si.cut_box((size, size), float(lam), (int(cy), int(cx)), partners, PARTNERS[1])
        for lam, cx, cy in values["cutmix_tf/lam_cutx_cuty"]
    ]


@pytest.mark.cases(r"cutmix_tf/(?P<result>batch_out)")
def test_boxes_and_mixed_batch_of_the_tensorflow_code(values, agrees, result):
    x = chw(values["cutmix_tf/batch_x_nhwc"])
    partners = torch.arange(len(x) - 1, -1, -1)
    boxes = tensorflow_boxes(values, x.shape[2], partners)
    agrees(
        lambda: torch.tensor([[b.x1, b.y1, b.y2 - b.y1, b.x2 - b.x1] for b in boxes]),
        values["cutmix_tf/x1_y1_h_w"],
    )
    mixed = si.cutmix_images(x, box=boxes[0])[0].movedim(1, -1)
    agrees(lambda: mixed, values[f"cutmix_tf/{result}"])


@pytest.mark.cases(r"(?P<group>rrc\d+)/i_j_h_w")
def test_boxes_are_distributed_as_published(values, group):
    width, height = values[f"{group}/image_w_h"].tolist()
    theirs = values[f"{group}/i_j_h_w"].astype(float)
    settings = si.PatchSettings(
        initial_crop=None, inverse_scale=tuple(values[f"{group}/inverse_scale"].tolist())
    )
    drawn = si.sample_patch_parameters(range(4000), (height, width), settings)
    ours = drawn.box.double().numpy()
    assert (ours[:, 2:] <= [height, width]).all()
    for quantity in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: np.log2(box[:, 3] / box[:, 2]),
        lambda box: box[:, 0] / np.maximum(height - box[:, 2], 1),
        lambda box: box[:, 1] / np.maximum(width - box[:, 3], 1),
    ):
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).statistic < 0.04


@pytest.mark.cases(r"affine/(?P<result>inverse_matrix)")
def test_inverse_of_rotation_and_shear(values, agrees, result):
    drawn = values.tensor("affine/angle_shx_shy")
    side = values["affine/image"].shape[0]
    found = inverse_matrix(drawn[:, 0], drawn[:, 1:], side).flatten(1)
    # PIL asks for the place of a pixel's centre, and so does the published matrix.
    agrees(lambda: found, values[f"affine/{result}"], 1e-9, 1e-9)


def whole_image(values, key, angle_shear):
    """Parameters that leave crop, resizing and colours out, for n rotations and shears."""
    side, n = values[key].shape[0], len(angle_shear)
    box = torch.tensor([[0, 0, side, side]]).expand(n, 4)
    return si.PatchParameters(
        source=torch.zeros(n, dtype=torch.int64),
        initial=box,
        box=box,
        angle=angle_shear[:, 0],
        shear=angle_shear[:, 1:],
        flip=torch.zeros(n, dtype=torch.bool),
        jitter=torch.zeros(n, dtype=torch.bool),
        order=torch.arange(4).expand(n, 4),
        factors=torch.ones(n, 4),
        interpolation=torch.full((n,), 2),
    )


class Unmagnified(si.PatchSettings):
    """Patches as large as the resized box."""

    @property
    def resized(self):
        return self.size


@pytest.mark.cases(r"affine/(?P<result>out)")
def test_rotated_and_sheared_pictures(values, agrees, result):
    image, expected = chw(values["affine/image"]), chw(values[f"affine/{result}"])
    settings = Unmagnified(size=image.shape[1])
    drawn = whole_image(values, "affine/image", values.tensor("affine/angle_shx_shy"))
    for n, theirs in enumerate(expected):
        ours = si.render_patch_reference(image, drawn, n, settings).patch
        agrees(lambda ours=ours: ours, theirs.numpy())
    batched = si.render_patches(image, drawn, settings)
    filled = (expected == 0).all(dim=1, keepdim=True).float()
    inside = (F.max_pool2d(filled, 3, 1, 1) == 0).expand_as(expected)
    gap = (batched.int() - expected.int()).abs()[inside]
    assert gap.max() <= GREY_LEVELS
    assert 0.2 < inside.float().mean() <= 1


def published_parameters(values):
    """The random numbers that the official generator drew."""
    boxes = {
        name: values.tensor(f"patches/{key}_i_j_h_w").long()
        for name, key in (("initial", "init"), ("box", "rrc"))
    }
    drawn = values.tensor("patches/angle_shx_shy")
    n = len(drawn)
    return si.PatchParameters(
        source=torch.zeros(n, dtype=torch.int64),
        **boxes,
        angle=drawn[:, 0],
        shear=drawn[:, 1:],
        flip=torch.zeros(n, dtype=torch.bool),
        jitter=values.tensor("patches/jitter_on"),
        order=values.tensor("patches/jitter_order_b0c1s2h3").long(),
        factors=values.tensor("patches/jitter_b_c_s_h"),
        interpolation=torch.full((n,), 2),
    )


def published_settings(values):
    crop, degrees, shear, r0, r1 = values[
        "patches/settings_initcrop_deg_shear_invscale0_invscale1"
    ].tolist()
    return si.PatchSettings(
        size=int(values["patches/crop_size"]),
        initial_crop=crop,
        degrees=degrees,
        shear=shear,
        inverse_scale=(r0, r1),
    )


@pytest.mark.cases(r"patches/(?P<result>patches)")
def test_reference_gives_the_published_patches_bit_for_bit(values, agrees, result):
    image, drawn = chw(values["patches/image"]), published_parameters(values)
    settings = published_settings(values)
    made = [si.render_patch_reference(image, drawn, n, settings) for n in range(len(drawn))]
    for key, stage in (
        ("after_resized_crop", "resized"),
        ("after_affine_centercrop", "middle"),
        (result, "patch"),
    ):
        expected = values[f"patches/{key}"]
        ours = torch.stack([getattr(one, stage) for one in made[: len(expected)]])
        agrees(lambda ours=ours: ours.movedim(1, -1), expected)


@pytest.mark.cases(r"patches/(?P<stage>after_affine_centercrop|patches)")
def test_batches_are_close_to_the_published_patches(values, stage):
    """One resampling instead of two is sharper, so they are closer where pixels are averaged."""
    image, drawn = chw(values["patches/image"]), published_parameters(values)
    expected = chw(values[f"patches/{stage}"]).float()
    if stage != "patches":
        drawn.jitter[:] = False
    ours = si.render_patches(image, drawn, published_settings(values)).float()
    filled = (expected == 0).all(dim=1, keepdim=True).float()
    inside = (F.max_pool2d(filled, 3, 1, 1) == 0).expand_as(expected)
    gap = (ours - expected) * inside
    assert gap.abs()[inside].mean() < 3
    assert F.avg_pool2d(gap, 4).abs().mean() < 1.5


@pytest.mark.cases(r"patches/(?P<size>pop_n)")
def test_a_population_of_patches_looks_as_the_published_one(values, size):
    image, count = chw(values["patches/image"]), int(values[f"patches/{size}"])
    seed, settings = int(values["patches/seed"]), published_settings(values)
    uint8 = si.patch_pool(image, count, settings, seed)
    pool = uint8.double() / 255

    def close(found, key, tolerance):
        np.testing.assert_allclose(found, values[f"patches/pop_{key}"], rtol=0, atol=tolerance)

    by_channel = pool.transpose(0, 1).flatten(1)
    close(by_channel.mean(dim=1), "channel_mean", 0.02)
    close(by_channel.std(dim=1), "channel_std", 0.02)
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    each = pool.flatten(1)
    contrast = pool.flatten(2).std(dim=2).mean(dim=1)
    close(contrast.quantile(levels), "patch_std_quantiles_05_25_50_75_95", 0.03)
    close(each.mean(dim=1).quantile(levels), "patch_mean_quantiles_05_25_50_75_95", 0.03)
    black = (uint8 == 0).all(dim=1)
    # The photograph itself is black in places, which one resampling changes less than two do.
    close(black.flatten(1).any(dim=1).double().mean(), "fraction_patches_with_black_pixel", 0.06)
    close(black.double().mean(), "fraction_black_pixels", 0.02)
    some = uint8[:200]
    errors = (si.jpeg_round_trip(some).double() - some.double()).square().flatten(1).mean(dim=1)
    close((10 * torch.log10(255**2 / errors)).mean(), "jpeg_psnr_db_mean", 1.5)


@pytest.mark.cases(r"video/(?P<result>frames)")
def test_fake_video(values, agrees, result):
    image = chw(values["video/image"])
    first, last = values.tensor("video/box0_box1_i_j_h_w")
    expected = values[f"video/{result}"]
    count, side = expected.shape[:2]
    agrees(lambda: si.interpolate_boxes(first, last, count), values["video/boxes"], 0, 1e-12)
    exact = si.fake_clip_reference(image, first, last, count, side)
    agrees(lambda: exact.movedim(1, -1), expected)
    # The batched way reads boxes as they are, not rounded to whole pixels.
    boxes = torch.from_numpy(values["video/boxes"])
    corner, end = boxes[:, :2].round(), (boxes[:, :2] + boxes[:, 2:]).round()
    rounded = torch.cat([corner, end - corner], dim=1)
    batched = torch.stack([si.fake_clip(image, box, box, 2, side)[0] for box in rounded])
    assert (batched.float() - chw(expected).float()).abs().mean() < 2 * GREY_LEVELS


@pytest.mark.cases(r"wrn_counts/(?P<rows>N_K_classes_trainable_total_macs)")
def test_wide_resnets_have_the_published_sizes(values, rows):
    for depth, width, classes, trainable, total, macs in values[f"wrn_counts/{rows}"].tolist():
        for tensorflow in (True, False):
            with torch.device("meta"):
                network = wide_resnet(depth, width, classes, tensorflow=tensorflow)
            statistics = sum(
                2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)
            )
            assert measure.parameters(network) == trainable
            assert measure.parameters(network) + statistics == total
            assert measure.macs(network, (3, 32, 32)) == macs


def load_tensorflow(network, arrays):
    """Weights into a Wide ResNet, in the order of Keras: a norm's four arrays in a row, kernels
    (height, width, in, out), and a block's shortcut after its second norm.
    """
    queue = iter(arrays)
    kernel = lambda: next(queue).movedim((3, 2), (0, 1))  # noqa: E731

    def norm(module):
        module.weight.data, module.bias.data = next(queue), next(queue)
        module.running_mean, module.running_var = next(queue), next(queue)

    network.conv.weight.data = kernel()
    for name in network.stage_names:
        for block in getattr(network, name):
            norm(block.norm1)
            block.conv1.weight.data = kernel()
            norm(block.norm2)
            if block.shortcut is not None:
                block.shortcut.weight.data = kernel()
            block.conv2.weight.data = kernel()
    norm(network.norm)
    network.classifier.weight.data, network.classifier.bias.data = next(queue).T, next(queue)
    assert next(queue, None) is None


@pytest.mark.cases(r"(?P<group>wrn_\d+_\d+)/logits_eval")
def test_a_wide_resnet_of_the_official_code_answers_as_there(values, agrees, group):
    depth, width, classes = values[f"{group}/N_K_classes"].tolist()
    network = wide_resnet(depth, width, classes, tensorflow=True)
    arrays = values.under(f"{group}/p")
    load_tensorflow(network, [arrays[name].float() for name in sorted(arrays)])
    x = chw(values[f"{group}/x_nhwc"]).float()
    with torch.no_grad():
        for mode, training in (("eval", False), ("train_mode", True)):
            expected = values[f"{group}/logits_{mode}"]
            found = network.train(training)(x)
            agrees(lambda found=found: found, expected, 0, 2e-6 * np.abs(expected).max())
    # The official layers declare this, and no published number was made with it.
    squares = sum(p.double().square().sum() for p in network.parameters() if p.dim() > 1)
    agrees(
        lambda: 2.5e-4 * squares.detach(),
        values[f"{group}/l2_regulariser_sum_not_used_by_the_distiller"],
        1e-6,
    )


@pytest.mark.cases(r"cka/(?P<kind>linear)_cka")
def test_alignment(values, agrees, kind):
    x, y = values.tensor("cka/X"), values.tensor("cka/Y")
    agrees(lambda: measure.cka(x, y, kind), values[f"cka/{kind}_cka"], 1e-12, 1e-12)


@pytest.mark.cases(r"logmel/(?P<result>logmel)")
def test_spectrogram(values, agrees, result):
    rate, window, hop, fft, bands, low, high = values[
        "logmel/sr_win_hop_nfft_nmel_fmin_fmax"
    ].tolist()
    settings = si.Spectrogram(int(rate), int(window), int(hop), int(fft), int(bands), low, high)
    agrees(lambda: si.mel_filterbank(settings), values["logmel/mel_filterbank"], 1e-10, 1e-10)
    wave = values.tensor("logmel/wave")[None]
    agrees(lambda: si.log_mel(wave, settings)[0, 0].T, values[f"logmel/{result}"], 1e-10, 1e-10)
    single = si.log_mel(wave.float(), settings)[0, 0].T.double()
    np.testing.assert_allclose(single, values[f"logmel/{result}"], atol=1e-3)
