"""One step of the method, and a whole training."""

import copy

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.data import Batches, load
from smallnets.distill import distill_from_image
from smallnets.distill import single_image as si
from smallnets.distill.single_image import streams
from smallnets.models import convnet
from smallnets.training import Batch, TrainSettings, seeded
from smallnets.training.checkpoint import weights_digest

QUICK = TrainSettings(
    epochs=2, batch_size=16, lr=3e-3, weight_decay=0.0, optimizer="adam", device="cpu",
    precision="32-true",
)  # fmt: skip
SMALL = si.PatchSettings(size=16)


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(200, 60)


def network(seed, classes=10, channels=3, width=4):
    with seeded(seed):
        return convnet(width, classes, channels, stem_stride=2)


class Frames(nn.Module):
    """The mean answer to the frames of a clip; of an image, the answer."""

    def __init__(self):
        super().__init__()
        self.frames = network(1)

    def forward(self, x):
        if x.dim() == 4:
            return self.frames(x)
        return self.frames(x.transpose(1, 2).flatten(0, 1)).view(len(x), -1, 10).mean(1)


@pytest.fixture
def moments():
    return si.Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3]))


def test_normalised_as_the_teacher_s_data(digits):
    x = digits.x_test[:5]
    layer = si.Normalise(digits.mean, digits.std)
    torch.testing.assert_close(layer(x.float() / 255), digits.normalise(x))
    torch.testing.assert_close(layer(x), digits.normalise(x))
    clip = torch.rand(2, 1, 4, 8, 8)
    torch.testing.assert_close(layer(clip)[:, :, 1], layer(clip[:, :, 1]))


@pytest.mark.parametrize("mixing", si.MIXINGS)
@pytest.mark.parametrize("loss", si.LOSSES)
def test_one_step_teaches_the_student_and_leaves_the_teacher(mixing, loss, moments, generator):
    teacher, student = network(1).train(), network(2)
    before = weights_digest(teacher.state_dict())
    ask = si.Imitation(loss=loss, mixing=mixing, k=3)
    images = torch.rand(8, 3, 16, 16)
    batch = Batch(images, torch.zeros(8, dtype=torch.int64), None, generator)
    terms = si.SingleImageDistillation(teacher, moments, ask)(student, batch)
    terms["loss"].backward()
    assert set(terms) == {"loss", "agreement"}
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert weights_digest(teacher.state_dict()) == before
    assert all(module.training for module in teacher.modules())


def test_a_copy_of_the_teacher_has_nothing_to_learn(moments, generator):
    teacher = network(1).eval()
    batch = Batch(torch.rand(8, 3, 16, 16), torch.zeros(8), None, generator)
    terms = si.SingleImageDistillation(teacher, moments, si.Imitation())(
        copy.deepcopy(teacher), batch
    )
    assert terms["loss"].item() == pytest.approx(0, abs=1e-7)
    assert terms["agreement"].item() == 1


def test_a_student_learns_a_teacher_s_answers_from_one_photograph(picture, moments):
    teacher = network(1, width=6)
    with torch.no_grad():  # a teacher that says different things of different patches
        teacher.classifier.weight.mul_(20)
        teacher(moments(torch.rand(64, 3, 16, 16)))
    before = weights_digest(teacher.state_dict())
    ask = si.Imitation(squared=True, mixing="none")
    settings = QUICK.with_epochs(6)
    student = network(2, width=12)
    made = si.PatchGenerator(picture, SMALL)
    history = distill_from_image(student, teacher, made, moments, ask, settings, seed=0, steps=20)
    assert weights_digest(teacher.state_dict()) == before
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert len(history) == 6
    unseen = si.patch_pool(picture, 200, SMALL, seed=9).float() / 255
    answers = [measure.predict(one, unseen, moments) for one in (student, teacher)]
    fresh = measure.predict(network(3, width=12), unseen, moments)
    assert measure.agreement(answers[0], answers[1]) > measure.agreement(fresh, answers[1]) + 0.1


def test_pool_stream_and_batches_of_a_user_s_own_are_taken(picture, moments, tmp_path):
    made = si.PatchGenerator(picture, SMALL)
    pool = made.take(range(64))
    own = Batches([pool[:16].float() / 255] * 3, labelled=False)
    ask, ends = si.Imitation(), []
    for source in (pool, made, own):
        for _ in range(2):
            student = network(2)
            steps = None if source is own else 4
            distill_from_image(
                student, network(1), source, moments, ask, QUICK, seed=4, steps=steps
            )
            ends.append(weights_digest(student.state_dict()))
    assert ends[::2] == ends[1::2]
    assert len(set(ends)) == 3


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (5, 3, 2, 16, 16)])
def test_fewer_images_than_a_batch_are_taken_over_and_over(moments, shape):
    pool = torch.randint(0, 256, shape, dtype=torch.uint8)
    settings = QUICK.with_epochs(1)
    ask = si.Imitation(mixing="none")
    seen = []

    class Watching(Frames):
        def forward(self, x):
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    student = Watching()
    distill_from_image(student, Frames(), pool, moments, ask, settings, seed=0, steps=3)
    assert seen[-3:] == [16] * 3
    with pytest.raises(
        ValueError, match=r"batch \(without steps\) must be between 1 and 5; got 16"
    ):
        distill_from_image(Frames(), Frames(), pool, moments, ask, settings, seed=0)


@pytest.mark.parametrize("kind", ["pool", "stream"])
def test_a_kept_training_that_was_stopped_goes_on_bit_for_bit(
    picture, moments, tmp_path, monkeypatch, kind
):
    made = si.PatchGenerator(picture, SMALL)
    source = made.take(range(48)) if kind == "pool" else made
    source_of = streams._Shuffled if kind == "pool" else streams._Fresh
    plain, given = source_of.__iter__, []

    def counted(self):
        for number, batch in enumerate(plain(self)):
            given.append(number)
            if len(given) == counted.patience:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(source_of, "__iter__", counted)

    def run(patience, folder):
        given.clear()
        counted.patience = patience
        student = network(2)
        history = distill_from_image(
            student, network(1), source, moments, si.Imitation(), QUICK, seed=4, steps=3,
            cache_dir=folder,
        )  # fmt: skip
        return weights_digest(student.state_dict()), history

    whole = run(0, None)
    asked = len(given)
    with pytest.raises(KeyboardInterrupt):
        run(asked - 1, tmp_path)
    assert run(0, tmp_path) == whole
    assert len(given) == asked - 3  # the first epoch was there
    assert run(0, tmp_path) == whole
    assert len(given) == 1  # a glance


def test_grey_images_and_other_sizes_are_taken(digits, picture):
    made = si.PatchGenerator(picture, si.PatchSettings(size=16, channels=1))
    student = network(2, channels=1)
    history = distill_from_image(
        student, network(1, channels=1), made, digits, si.Imitation(), QUICK, seed=0, steps=2
    )
    assert len(history) == 2


def test_clips_are_taken(picture):
    made = si.ClipGenerator(picture, si.PatchSettings(size=16), frames=3)
    layer = si.Normalise(torch.full((3,), 0.45), torch.full((3,), 0.225))
    batches = si.fresh_batches(made, 4, steps=2)
    ask = si.PUBLISHED["video"]
    history = distill_from_image(Frames(), Frames(), batches, layer, ask, QUICK, seed=0)
    assert len(history) == 2


def test_published_settings():
    rows = {
        name: (ask.loss, ask.temperature, ask.squared, ask.mixing, ask.alpha)
        for name, ask in si.PUBLISHED.items()
    }
    assert rows == {
        "small": ("kl", 8, False, "cutmix_reverse", 0.25),
        "large": ("kl", 8, False, "cutmix", 1),
        "video": ("kl", 5, False, "cutmix", 1),
    }
    small, large, video = (si.PUBLISHED[name].view for name in ("small", "large", "video"))
    assert (small.flip, small.padding, small.area) == (True, 4, None)
    assert (large.flip, large.padding, large.area, large.size) == (True, 0, (0.08, 1), 224)
    assert (large.aspect, large.interpolation) == ((3 / 4, 4 / 3), "bicubic")
    assert (large.jitter, large.jitter_probability) == ((0.4, 0.4, 0.4, 0.4), 0.8)
    assert (large.grey_probability, large.solarise_probability) == (0.2, 0.2)
    assert large.threshold == 128
    assert (video.flip, video.padding, video.aspect) == (True, 0, (1, 1))
    for view in (small, video):
        shares = view.jitter_probability, view.grey_probability, view.solarise_probability
        assert shares == (0, 0, 0)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (4, 3, 2, 16, 16)])
def test_networks_are_tried_at_the_size_of_the_view(moments, shape):
    class Fixed(Frames):
        def forward(self, x):
            assert x.shape[-2:] == (8, 8)
            return super().forward(x)

    pool = torch.randint(0, 256, (16, *shape[1:]), dtype=torch.uint8)
    ask = si.Imitation(view=si.TrainingView(padding=0, area=(0.5, 1.0), size=8))
    history = distill_from_image(Fixed(), Fixed(), pool, moments, ask, QUICK, seed=0)
    assert len(history) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "mse"}, "loss must be one of kl, argmax, top_k, l2, l1; got 'mse'"),
        ({"temperature": 0}, "temperature must be greater than 0; got 0"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"mixing": "cutout"}, "mixing must be one of none, cutmix"),
        ({"alpha": 0}, "alpha must be greater than 0; got 0"),
    ],
)
def test_imitations_out_of_range_are_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words):
        si.Imitation(**changes)


def test_networks_and_patches_that_do_not_fit_are_refused_in_one_line(picture, moments, digits):
    made = si.PatchGenerator(picture, SMALL)

    def call(student=None, teacher=None, patches=made, data=moments, steps=None):
        distill_from_image(
            student or network(2), teacher or network(1), patches, data, si.Imitation(), QUICK,
            seed=0, steps=steps,
        )  # fmt: skip

    with pytest.raises(ValueError, match="must have the same classes; got 10 and 7"):
        call(teacher=network(1, classes=7))
    with pytest.raises(ValueError, match="teacher does not take images of shape") as error:
        call(teacher=network(1, channels=1))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="must have the 1 channels of the teacher's images; got 3"):
        call(data=digits)
    with pytest.raises(ValueError, match="must be images from 0 to 1, not yet normalised"):
        call(patches=Batches([3 * torch.randn(4, 3, 16, 16)], labelled=False))
    with pytest.raises(ValueError, match=r"patches must be a generator .*; got str"):
        call(patches="photo")
    with pytest.raises(ValueError, match="batches have their own steps, 1; got steps 2"):
        call(patches=Batches([torch.rand(4, 3, 16, 16)], labelled=False), steps=2)
    with pytest.raises(ValueError, match="floating-point images"):
        call(patches=Batches([torch.rand(4, 3)], labelled=False))
    teacher = network(1)
    with pytest.raises(ValueError, match="must not share parameters"):
        call(student=teacher, teacher=teacher)
