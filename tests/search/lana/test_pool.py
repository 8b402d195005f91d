import numpy as np
import pytest
from torch import nn

from smallnets import measure
from smallnets.search.lana import Pool, build_pool, log10_space, restricted, sizes
from smallnets.search.lana.pool import same_pool


def test_pools_are_ragged_where_shapes_forbid(pool):
    assert [len(names) for names in pool.names] == [5, 4, 4]
    assert all(names[0] == "teacher" for names in pool.names)
    assert len(pool.pairs) == 10
    assert pool.space == pytest.approx(np.log10(5 * 4 * 4))


def test_the_papers_space():
    assert log10_space([197] * 45) == pytest.approx(103.25, abs=0.01)


def test_sizes_are_those_of_the_modules(layered, pool):
    table = sizes(layered, pool)
    assert table["macs"][0][0] == measure.macs(layered.layers[0], (4, 16, 16))
    assert table["parameters"][0][1] == table["macs"][0][1] == 0  # the identity
    for layer, choice in pool.pairs:
        module = pool.module(layered, layer, choice)
        assert table["parameters"][layer][choice] == measure.parameters(module)


def test_sizes_add_up_to_those_of_the_network(layered, pool):
    table = sizes(layered, pool)
    for key, count in (
        ("parameters", measure.parameters),
        ("macs", lambda m: measure.macs(m, (1, 16, 16))),
    ):
        fixed = count(layered.network) - sum(row[0] for row in table[key])
        student = pool.stitched(layered, (2, 3, 1))
        added = table[key][0][2] + table[key][1][3] + table[key][2][1]
        assert count(student) == fixed + added


def test_parts_share_modules(pool):
    part = pool.part([(1, 2), (2, 1)])
    assert part.names == [("teacher",), ("teacher", pool.names[1][2]), ("teacher", "skip")]
    assert part.rows[1][0] is pool.rows[1][1]


def test_smaller_pools_forbid_the_rest(pool):
    banned = restricted(pool.names, ("skip",))
    assert all(pool.names[i][j] not in ("skip", "teacher") for i, j in banned)
    assert len(banned) == len(pool.pairs) - 3
    with pytest.raises(ValueError, match=r"operations must be among .*skip.*; got 'conv9'"):
        restricted(pool.names, ("conv9",))


def test_candidates_of_ones_own_are_checked(layered):
    rows = [{"wide": nn.Conv2d(4, 5, 1)}, {}, {}]
    with pytest.raises(
        ValueError,
        match=r"wide of layer stage1.0 must map \(4, 16, 16\) to \(4, 16, 16\); got \(5, 16, 16\)",
    ):
        same_pool(layered, Pool(rows))
    with pytest.raises(ValueError, match=r"narrow of layer stage1.0 does not take \(4, 16, 16\)"):
        same_pool(layered, Pool([{"narrow": nn.Conv2d(3, 4, 1)}, {}, {}]))
    with pytest.raises(ValueError, match="a row for each of 3 layers; got 1"):
        same_pool(layered, Pool([{}]))
    with pytest.raises(ValueError, match="'teacher' is the layer that is there"):
        Pool([{"teacher": nn.Identity()}])


def test_wrong_choices_are_refused(layered, pool):
    with pytest.raises(ValueError, match="one for each of 3 layers; got 2"):
        pool.stitched(layered, (0, 0))
    with pytest.raises(ValueError, match="choice of layer 1 must be between 0 and 3; got 4"):
        pool.stitched(layered, (0, 4, 0))


def test_the_teacher_may_be_named_and_repeats_may_not(layered):
    assert build_pool(layered, ("teacher", "skip")).names[0] == ("teacher", "skip")
    with pytest.raises(ValueError, match="must differ; got 'skip' twice"):
        build_pool(layered, ("skip", "skip"))
