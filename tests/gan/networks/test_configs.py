"""Spaces of configurations: order, sizes, draws, text."""

import itertools

import pytest
import torch

from smallnets.gan.networks.configs import ConfigSpace, check_config, decode, encode
from smallnets.gan.networks.published import PUBLISHED_CONFIGS, PUBLISHED_SPACES

SPACE = ConfigSpace(((3, 2, 1), (8, 4), (5,)))


def test_a_space_lists_every_configuration_once():
    assert list(SPACE) == list(itertools.product((3, 2, 1), (8, 4), (5,)))
    assert len(SPACE) == SPACE.size == 6
    assert (SPACE.largest(), SPACE.smallest()) == ((3, 8, 5), (1, 4, 5))
    assert (2, 4, 5) in SPACE
    assert (2, 5, 5) not in SPACE


def test_text_and_back():
    assert decode(encode((16, 4, 32))) == (16, 4, 32)
    for text in ("", "16__4", "16_0", "a_1", "1.5_2", "-1_2", None):
        with pytest.raises(ValueError, match="whole numbers above 0"):
            decode(text)


def test_draws_are_uniform_and_repeatable():
    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return [SPACE.sample(generator) for _ in range(600)]

    assert drawn(1) == drawn(1) != drawn(2)
    counts = [drawn(1).count(config) for config in SPACE]
    assert min(counts) > 60


def test_draws_follow_probabilities():
    probabilities = SPACE.probabilities("geometric", 3)
    generator = torch.Generator().manual_seed(0)
    drawn = [SPACE.sample(generator, probabilities) for _ in range(600)]
    assert [len(p) for p in probabilities] == [3, 2, 1]
    share = sum(config[0] == 1 for config in drawn) / 600
    assert share == pytest.approx(9 / 13, abs=0.06)
    with pytest.raises(ValueError, match="must be lists of 3, 2, 1"):
        SPACE.sample(generator, probabilities[:2])


def test_arithmetic_bias_makes_the_last_as_many_times_the_first():
    for row in SPACE.probabilities("arithmetic", 2.5):
        assert sum(row) == pytest.approx(1)
        assert len(row) == 1 or row[-1] / row[0] == pytest.approx(2.5)
    assert SPACE.probabilities("arithmetic", 1.0001)[0] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((), "a list for every layer"),
        (((),), "at least one number"),
        (((4, 0),), "at least 1"),
        (((4, 2.5),), "whole number"),
        (((4, 4),), "must differ"),
    ],
)
def test_impossible_spaces_are_refused(widths, message):
    with pytest.raises(ValueError, match=message):
        ConfigSpace(widths)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ((3, 8), "must have 3 widths; got 2"),
        ((3, 8, 6), "at most 5; got 6"),
        ((3, 0, 5), "at least 1"),
        ((3, 8.0, 5), "whole number"),
        ("3_8_5", "sequence of whole numbers; got '3_8_5'"),
        (7, "sequence of whole numbers; got 7"),
    ],
)
def test_impossible_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        check_config(config, (3, 8, 5))


def test_configurations_of_other_spaces_are_refused():
    assert SPACE.check([3, 4, 5]) == (3, 4, 5)
    with pytest.raises(ValueError, match="width 1 of the configuration must be one of 8, 4; got 5"):
        SPACE.check((3, 5, 5))
    with pytest.raises(ValueError, match="bias must be one of"):
        SPACE.probabilities("quadratic")
    with pytest.raises(ValueError, match="at least 1"):
        SPACE.probabilities("geometric", 0.5)


def test_published_configurations_belong_to_published_spaces():
    for name, space in (
        ("horse2zebra", "resnet:channels-32"),
        ("horse2zebra fast", "resnet:channels-64-cycleGAN"),
        ("edges2shoes", "resnet:channels-48"),
        ("edges2shoes fast", "resnet:channels-64-pix2pix"),
        ("gaugan", "spade:channels-48"),
        ("gaugan fast", "spade:channels-64"),
        ("coco fast", "spade:channels-64-coco"),
        ("munit fast", "munit:channels-64"),
    ):
        assert PUBLISHED_CONFIGS[name] in PUBLISHED_SPACES[space]
