"""The published trainings fit the library's networks and spaces."""

import pytest

from smallnets.gan.networks import PUBLISHED_CONFIGS, PUBLISHED_SPACES, channels_of, resnet_cost
from smallnets.gan.recipes import RECIPES, munit_recipe


@pytest.mark.parametrize("name", [*RECIPES, "munit"])
def test_a_recipe_names_a_space_of_its_supernet(name):
    recipe = munit_recipe(1000) if name == "munit" else RECIPES[name]
    space = PUBLISHED_SPACES[recipe.space]
    assert max(space.largest()) == recipe.ngf
    assert (recipe.search is None) == (recipe.teacher is not None)
    if recipe.ratio > 1:
        assert space.probabilities("arithmetic", recipe.ratio)[0][-1] > 1 / len(space.widths[0])


@pytest.mark.parametrize("task", ["horse2zebra", "edges2shoes", "cityscapes", "map2sat"])
def test_a_task_has_both_pipelines_and_the_released_network_is_within_the_budget(task):
    full, fast = RECIPES[f"{task} full"], RECIPES[f"{task} fast"]
    assert full.objective == fast.objective
    assert full.supernet == fast.supernet
    config = PUBLISHED_CONFIGS[f"{task} fast"]
    assert config in PUBLISHED_SPACES[fast.space]
    cost = resnet_cost(channels_of(config), (256, 256)).published
    assert 0.85 * fast.budget < cost <= fast.budget


def test_munit_counts_steps():
    recipe = munit_recipe(1000)
    assert recipe.supernet.epochs * 1000 == 2_000_000
    assert recipe.supernet.factor(0, 400_000) == 0.25
