"""Which seed every part of an experiment gets, so that no two parts of a study share one.

Students have the seed of their repetition, from 0 to 999. Teachers have others, each its own:
repetitions are compared as independent ones, and are not if two of them have a teacher in common.
"""

from smallnets import checks

MOST = 1000  # repetitions, and teachers of one


def teacher_seed(seed: int, number: int = 0) -> int:
    """Seed of a repetition's teacher: 1000 and more for the first, 2000 and more for the second.

    Args:
        seed: of the repetition, from 0 to 999.
        number: which of its teachers, from 0 to 999.

    Raises:
        ValueError: a number is out of range.
    """
    return MOST * (1 + _below("number of the teacher", number)) + _below("seed", seed)


def member_seed(seed: int, member: int) -> int:
    """Seed of a member of a repetition's ensemble: 1000 and more for the first repetition, 2000 and
    more for the second. A study uses this or `teacher_seed`, not both.

    Args:
        seed: of the repetition, from 0 to 999.
        member: which of the ensemble, from 0 to 999.

    Raises:
        ValueError: a number is out of range.
    """
    return MOST * (1 + _below("seed", seed)) + _below("member", member)


def _below(name: str, number: int) -> int:
    checks.between(name, checks.whole(name, number, 0), 0, MOST - 1)
    return number
