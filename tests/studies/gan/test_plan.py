"""What is opened, with which settings, and what is refused before anything is trained."""

from dataclasses import replace

import pytest
import torch

from smallnets.data.scenes import scenes
from smallnets.studies import gan as study
from smallnets.studies.gan.plan import TRAININGS
from smallnets.studies.study import StudySettings

SCALES = {"smoke", "small", "evidence", "paper"}


def test_the_study_has_the_shape_of_all_studies():
    assert set(study.PRESETS) == SCALES
    assert all(isinstance(one, study.Settings) for one in study.PRESETS.values())
    assert issubclass(study.Settings, StudySettings)
    domain, settings = study.prepare("scenes", "smoke", study.Options(seeds=1, train=60))
    assert settings.train == len(domain.pairs.a_train) == 60
    assert settings.seeds == 1
    assert study.PRESETS["evidence"].seeds == 8
    assert all(one.supernets >= 3 for scale, one in study.PRESETS.items() if scale != "smoke")


@pytest.mark.parametrize("scale", sorted(SCALES - {"paper"}))
def test_what_is_asked_for_takes_the_place_of_the_preset(scale):
    preset = study.PRESETS[scale]
    options = study.Options(epochs=40, device="cpu", flips=False, ngf=16, size=16, train=60, test=4)
    domain, settings = study.prepare("scenes", scale, options)
    assert domain.size == (16, 16)
    assert settings.size == 16
    before = preset.training.epochs + preset.training.decay_epochs
    for name in TRAININGS:
        one, old = getattr(settings, name), getattr(preset, name)
        assert one.epochs == max(1, round(old.epochs * 40 / before))
        assert one.device == "cpu"
        assert one.flip is False
    assert settings.reading.device == "cpu"
    assert settings.loose_ngf == max(1, round(preset.loose_ngf * 16 / preset.ngf))
    assert set(settings.coarse) <= set(settings.shares)


def test_options_of_none_leave_a_preset_as_it_is():
    _, settings = study.prepare("scenes", "smoke")
    preset = study.PRESETS["smoke"]
    changed = {name: getattr(preset, name) for name in (*TRAININGS, "reading", "train", "held_out")}
    assert replace(settings, **changed) == preset


def test_a_file_of_pairs(own_file):
    domain, settings = study.prepare(own_file(), "smoke")
    assert domain.size == (20, 16)
    assert domain.pairs.b_channels == 1
    assert not domain.drawn
    assert settings.size is None
    assert settings.held_out <= len(domain.loose.a_train) // 5
    assert study.criterion(domain).name == "distance"
    smallest = len(domain.loose.a_train) - settings.held_out
    assert all(getattr(settings, name).batch_size <= smallest for name in TRAININGS)


def test_no_input_is_learned_from_with_its_own_target_after_tearing():
    pairs = scenes("paired", train=10, test=2, size=16)
    torn = study.torn(pairs)
    places = {image.numpy().tobytes(): place for place, image in enumerate(pairs.b_train)}
    inputs = {image.numpy().tobytes(): place for place, image in enumerate(pairs.a_train)}
    mine = {inputs[image.numpy().tobytes()] for image in torn.a_train}
    theirs = {places[image.numpy().tobytes()] for image in torn.b_train}
    assert not mine & theirs
    assert len(mine) == len(theirs) == 5
    assert torch.equal(torn.labels_train, pairs.labels_train[5:])
    assert not torn.paired
    assert torn.aligned


def test_domains_of_the_same_images_are_equal():
    one, two = (study.open_domain("scenes", train=8, test=2, size=16) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    other = replace(one, loose=replace(one.loose, b_test=255 - one.loose.b_test))
    assert other != one
    assert other.key != one.key


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"name": "glyphs10"}, r"^dataset must be one of scenes, npz:FILE; got 'glyphs10'"),
        ({"name": 3}, r"^dataset must be one of scenes"),
        ({"scale": "large"}, r"^scale must be one of"),
        ({"size": 18}, r"^height and width must be multiples of 4, at least 16; got 18 x 18"),
        ({"size": 12}, r"^size must be .*16; got 12"),
        ({"size": True}, r"^size must be"),
        ({"train": 4}, r"^train must be .*8; got 4"),
        ({"paired": False}, r"^paired must be None for scenes"),
        ({"precision": "bf16-mixed"}, r"^precision must be one of auto, 32-true; got 'bf16-mixed'"),
        ({"ngf": 0}, r"^ngf must be"),
        ({"epochs": 0}, r"^epochs must be"),
        ({"seeds": 0}, r"^seeds must be"),
        ({"flips": "yes"}, r"^flips must be True, False or None; got 'yes'"),
        ({"device": "tpu"}, r"^device must be one of"),
        ({"ngf": 1}, r"^budget must be at least .* a larger ngf leaves more room"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, line):
    asked = {"size": 16, "train": 40, "test": 2} | arguments
    name, scale = asked.pop("name", "scenes"), asked.pop("scale", "smoke")
    with pytest.raises(ValueError, match=line) as caught:
        study.prepare(name, scale, study.Options(**asked))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "options", "line"),
    [
        ((30, 18, 16), {}, r"^height and width must be multiples of 4, at least 16; got 18 x 16"),
        ((6, 16, 16), {}, r"^training images of each set in npz:.* must be at least 8; got 6"),
        ((30, 16, 16), {"size": 32}, r"^size must be None for a file, which has its own; got 32"),
        ((30, 16, 16), {"paired": 1}, r"^paired must be one of None, True, False; got '1'"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(own_file, shape, options, line):
    with pytest.raises(ValueError, match=line):
        study.prepare(own_file(shape), "smoke", study.Options(**options))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^no data file .*expected an .npz file with a_tr"):
        study.prepare(f"npz:{tmp_path}/none.npz", "smoke")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"shares": ()}, "shares"),
        ({"shares": (1.0, 1.5)}, "shares"),
        ({"coarse": (0.6,)}, r"^coarse must be among shares"),
        ({"budget": 0.0}, "budget"),
        ({"held_out": True}, "held_out"),
        ({"timed": 2}, "timed"),
        ({"timed_side": 18}, r"^timed_side must be a multiple of 4; got 18"),
        ({"family_sizes": (64,)}, r"^family_sizes must be two numbers"),
        ({"family_sizes": (32, 32)}, r"^family_sizes must be at least 64; got 32"),
        ({"family_train": (20, 4)}, r"^family_train must be at least 20; got 4"),
        ({"ngf": float("nan")}, "ngf"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, line):
    with pytest.raises(ValueError, match=line):
        replace(study.PRESETS["small"], **changes)
