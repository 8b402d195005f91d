"""What the teacher sees in patches, and what the student has learnt."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smallnets.distill import single_image as si
from smallnets.models import convnet
from smallnets.training import seeded


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return convnet(4, 5, stem_stride=2).eval()


@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 99), st.floats(0, 30))
def test_mutual_information_lies_between_nothing_and_the_logarithm(n, classes, seed, scale):
    logits = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
    found = si.coverage_of_logits(logits)
    assert found.mutual_information <= math.log(classes) + 1e-9
    answers = logits.double().softmax(1)
    distance = torch.special.xlogy(answers, answers / answers.mean(0)).sum(1)  # from the mean
    assert found.mutual_information == pytest.approx(distance.mean().item(), abs=1e-9)
    assert found.mean_entropy + found.mutual_information == pytest.approx(found.entropy_of_mean)
    assert found.histogram.sum() == n
    assert found.mean_probability.sum().item() == pytest.approx(1)
    assert 1 <= found.classes_hit <= min(n, classes)
    assert found.shares.sum().item() == pytest.approx(1)


def test_coverage_of_the_clearest_cases():
    same = si.coverage_of_logits(torch.tensor([[1.0, 2.0, 0.0]]).expand(30, 3))
    assert same.mutual_information == pytest.approx(0, abs=1e-12)
    assert same.histogram.tolist() == [0, 30, 0]
    each = si.coverage_of_logits(1000 * torch.eye(4))
    assert each.mutual_information == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match="logits must be finite"):
        si.coverage_of_logits(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match=r"must be \(patches, classes\)"):
        si.coverage_of_logits(torch.zeros(0, 4))


def test_coverage_of_patches(net, picture):
    pool = si.patch_pool(picture, 60)
    found = si.coverage(net, pool)
    assert found.histogram.sum() == 60
    plain = si.PatchSettings(jitter_probability=0.0, shear=0.0)
    blank = si.coverage(net, si.patch_pool(si.source_image("blank", (64, 64)), 60, plain))
    assert blank.mutual_information < found.mutual_information
    assert blank.classes_hit == 1


def test_accuracy_by_class_against_the_share_of_the_patches():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    student = torch.eye(4)[torch.tensor([0, 1, 1, 1, 0, 2])]
    teacher = torch.eye(4)[torch.tensor([0, 0, 1, 1, 1, 1])]
    found = si.coverage_of_logits(torch.eye(4)[torch.tensor([0, 0, 0, 1])] * 9)
    by_class = si.accuracy_against_coverage(student, teacher, labels, found)
    assert by_class.accuracy[:3].tolist() == pytest.approx([1 / 2, 2 / 3, 1])
    assert by_class.accuracy[3].isnan()
    assert by_class.agreement[:2].tolist() == pytest.approx([1 / 2, 2 / 4])
    assert by_class.share.tolist() == [0.75, 0.25, 0, 0]
    with pytest.raises(ValueError, match=r"logits must be \(6, 4\)"):
        si.accuracy_against_coverage(student[:, :3], teacher, labels, found)


def test_layers_are_like_their_own_and_less_like_others(net, picture):
    with seeded(1):
        other = convnet(6, 5, stem_stride=2)
    images = si.patch_pool(picture, 50).float() / 255
    names = {name: name for name in net.stage_names}
    own = si.layer_similarity(net, net, images, names)
    assert all(value == pytest.approx(1) for value in own.values())
    found = si.layer_similarity(net, other, images, names)
    assert all(0 < value < 1 for value in found.values())
    passes = []
    handle = net.register_forward_hook(lambda *_: passes.append(1))
    assert si.layer_similarity(net, other, images, names) == found
    handle.remove()
    assert len(passes) == 1  # for all layers
    features = si.pooled_features(net, images, "stage2", batch_size=7)
    torch.testing.assert_close(features, si.pooled_features(net, images, "stage2"))
    assert features.shape == (50, 8)
    grey_levels = (255 * images).round().to(torch.uint8)
    torch.testing.assert_close(si.pooled_features(net, grey_levels, "stage2"), features)
    layer = si.Normalise(torch.full((3,), 0.4), torch.full((3,), 0.2))
    torch.testing.assert_close(
        si.pooled_features(net, grey_levels, "stage2", layer),
        si.pooled_features(net, images, "stage2", layer),
    )


def test_an_embedding_shows_what_the_patches_enclose():
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(200, 6, generator=generator)
    near = si.embed(patches, 0.01 * torch.randn(50, 6, generator=generator))
    assert near.inside == 1
    assert near.patches.shape == (200, 2)
    far = si.embed(patches, 100 + torch.randn(50, 6, generator=generator))
    assert far.inside == 0
    turned = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    again = si.embed(patches @ turned + 5, patches[:50] @ turned + 5)
    plain = si.embed(patches, patches[:50])
    torch.testing.assert_close(again.patches.abs(), plain.patches.abs(), rtol=1e-3, atol=1e-4)
    line = si.embed(torch.arange(9.0)[:, None], torch.ones(2, 1))
    assert line.inside == 0  # without area


def test_neighbourhoods():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(30, 4, generator=generator), 20 + torch.randn(20, 4, generator=generator)
    found = si.embed(*groups, method="tsne", seed=1)
    gap = (found.patches.mean(0) - found.real.mean(0)).norm()
    assert gap > found.patches.std() / 2
    with pytest.raises(ValueError, match="method must be one of pca, tsne; got 'umap'"):
        si.embed(*groups, method="umap")
    with pytest.raises(ValueError, match=r"must both be \(n, features\)"):
        si.embed(groups[0], groups[1][:, :2])
    with pytest.raises(ValueError, match="features must be finite"):
        si.embed(groups[0] * math.nan, groups[1])


class Tastes(nn.Module):
    """Likes red images, images with upright stripes two pixels wide, and nothing."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.eval()

    def forward(self, x):
        colours = x.mean((2, 3))
        stripes = torch.cos(torch.arange(x.shape[3]) * torch.pi / 2) * x.mean(1, keepdim=True)
        red = colours[:, 0] - colours[:, 2]
        return self.norm(torch.stack([red, stripes.mean((1, 2, 3)), 0 * red], 1))


def test_an_image_that_makes_a_class_likely():
    taste = Tastes().train()
    before = {name: value.clone() for name, value in taste.state_dict().items()}
    still = si.Ascent(steps=60, lr=0.4, shift=0, degrees=0.0, scale=0.0)
    images, course = si.maximise_activation(taste, (0, 1), 16, still, seed=1)
    assert images.shape == (2, 3, 16, 16)
    assert course.shape == (60, 2)
    assert (course[-1] > course[0] + 0.1).all()
    red, _, blue = images[0].mean((1, 2))
    assert red > 0.7
    assert blue < 0.3
    columns = images[1].mean((0, 1))
    assert columns[::4].min() > columns[2::4].max() + 0.3
    assert taste.training
    assert all(torch.equal(value, before[name]) for name, value in taste.state_dict().items())
    assert all(p.grad is None for p in taste.parameters())
    moved = si.Ascent(steps=60, lr=0.4)
    again = [si.maximise_activation(taste, 0, 16, moved, seed=1) for _ in range(2)]
    assert torch.equal(again[0][0], again[1][0])
    assert again[0][1][-1] > again[0][1][0] + 0.1
    grey = si.maximise_activation(convnet(2, 3, 1), 1, 9, si.Ascent(steps=2), channels=1)[0]
    assert grey.shape == (1, 1, 9, 9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: si.maximise_activation(n, 5, 16), "classes must be between 0 and 4; got 5"),
        (lambda n: si.maximise_activation(n, -1, 16), "every one of classes must be at least 0"),
        (lambda n: si.maximise_activation(n, 0, 16, channels=2), "channels must be 1 or 3"),
        (lambda n: si.Ascent(steps=0), "steps must be at least 1"),
        (lambda n: si.Ascent(scale=1.0), "scale must be between 0 and 0.9"),
        (lambda n: si.maximise_activation(nn.Identity(), 0, 1), "size must be at least 2"),
    ],
)
def test_what_cannot_be_maximised_is_refused_in_one_line(net, call, words):
    with pytest.raises(ValueError, match=words):
        call(net)
