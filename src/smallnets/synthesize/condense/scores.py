"""Two scores that tell what a set is worth apart from labels and augmentation of its evaluation.

From DD-Ranking (Li et al., 2025, arXiv:2505.13300), as its documentation defines them. A higher
accuracy may come from soft labels or from augmentation alone, from which a random selection of real
images gains as well. Both scores are 100 (e^a - e^-1) / (e - e^-1) of a weighted difference a of
accuracies.
"""

from math import e, exp

from smallnets import checks


def label_robust_score(
    real_hard: float, synthetic_hard: float, synthetic: float, random: float, weight: float = 0.5
) -> float:
    """LRS, 0 to 100: a = w IOR - (1 - w) HLR.

    The hard label recovery HLR is what the set lacks to the whole data, both with hard labels; the
    improvement over random IOR is what it gains over as many random images, both evaluated in the
    method's own way.

    Args:
        real_hard: accuracy of the whole data with hard labels; all accuracies are from 0 to 1.
        synthetic_hard: of the set with hard labels.
        synthetic: of the set as its method evaluates it.
        random: of random images, evaluated so.
        weight: the w of the benchmark, 0.5 on its leaderboard.

    Raises:
        ValueError: a number out of 0 .. 1.
    """
    _shares(real_hard, synthetic_hard, synthetic, random)
    checks.between("weight", weight, 0, 1)
    return normalised_score(
        weight * (synthetic - random) - (1 - weight) * (real_hard - synthetic_hard)
    )


def augmentation_robust_score(
    synthetic: float,
    random: float,
    synthetic_plain: float,
    random_plain: float,
    *,
    weight: float,
) -> float:
    """ARS, 0 to 100: a = g (synthetic - random) + (1 - g) (synthetic - random, unaugmented).

    Args:
        synthetic, random: accuracies, 0 to 1, of the set and of random images, trained with the
            method's augmentation.
        synthetic_plain, random_plain: of both, trained without.
        weight: the g of the benchmark, which names no usual value.

    Raises:
        ValueError: a number out of 0 .. 1.
    """
    _shares(synthetic, random, synthetic_plain, random_plain)
    checks.between("weight", weight, 0, 1)
    return normalised_score(
        weight * (synthetic - random) + (1 - weight) * (synthetic_plain - random_plain)
    )


def normalised_score(difference: float) -> float:
    """100 (e^a - e^-1) / (e - e^-1) of a difference a from -1 to 1: 0 to 100, and 26.9 at 0."""
    checks.between("difference", difference, -1, 1)
    return 100 * (exp(difference) - 1 / e) / (e - 1 / e)


def _shares(*accuracies: float) -> None:
    for value in accuracies:
        checks.between("every accuracy", value, 0, 1)
