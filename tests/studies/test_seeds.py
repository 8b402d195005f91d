import ast
from pathlib import Path

import pytest

import smallnets.studies
from smallnets.studies.seeds import MOST, member_seed, teacher_seed

STUDIES = Path(smallnets.studies.__file__).parent


@pytest.mark.parametrize("role", [teacher_seed, member_seed])
def test_no_two_parts_of_an_experiment_share_a_seed(role):
    students = range(MOST)
    teachers = [role(seed, number) for seed in range(MOST) for number in range(20)]
    assert len({*students, *teachers}) == len(students) + len(teachers)


def test_the_first_teachers_are_those_of_the_stored_numbers():
    assert [teacher_seed(seed) for seed in (0, 1, 7)] == [1000, 1001, 1007]
    assert [member_seed(0, 2), member_seed(1, 2)] == [1002, 2002]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: teacher_seed(1000), "seed must be between 0 and 999; got 1000"),
        (lambda: teacher_seed(0, -1), "number of the teacher must be at least 0; got -1"),
        (lambda: member_seed(0, 1000), "member must be between 0 and 999; got 1000"),
        (lambda: member_seed(1.5, 0), "seed must be a whole number of at least 0; got 1.5"),
    ],
)
def test_numbers_whose_seeds_would_meet_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_study_gives_out_seeds_of_its_own():
    for path in STUDIES.rglob("*.py"):
        if path.name == "seeds.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and "seed" in map(ast.unparse, (node.left, node.right)):
                # another repetition's result, which is no seed
                assert ast.unparse(node) in ("seed + 1", "(seed + 1) % count"), path
