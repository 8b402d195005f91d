"""What a network is called is how it learns."""

from dataclasses import replace

import pytest
import torch

from smallnets import gan
from smallnets.gan.networks import channels_of
from smallnets.studies import gan as study
from smallnets.studies.gan import learners, named


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.fixture
def played(monkeypatch):
    """Games in the order in which they would have been played."""
    games = []

    def play(game, data, training, **how):
        games.append((game, data, training, how))
        return [{"held out": 0.0, "G_recon": 0.0}]

    monkeypatch.setattr(learners.gan, "play", play)
    monkeypatch.setattr(learners.gan, "train_supernet", play)
    for one in (learners.alone, learners.cycle_teacher, learners.train_supernet):
        one.cache_clear()
    yield games
    for one in (learners.alone, learners.cycle_teacher, learners.train_supernet):
        one.cache_clear()


@pytest.mark.parametrize(("name", "how"), study.STUDENTS.items())
def test_students_have_the_terms_of_their_name(name, how, domain, quick, kept, played):
    features, inherited = how
    config = study.uniform(quick, 0.5)
    study.student(domain, quick, 0, config, kept, features=features, inherited=inherited)
    (teacher, *_), (game, data, training, _) = played
    assert game.teacher is teacher.generator
    assert (game.ask.distill > 0) == (game.features is not None) == features
    assert same(game.discriminator, teacher.discriminator) == inherited
    assert game.discriminator is not teacher.discriminator
    assert game.student.channels == channels_of(config, quick.n_blocks)
    assert game.paired
    assert game.ask.recon == quick.ask.recon
    assert data.paired
    assert training == quick.training


@pytest.mark.parametrize(("name", "how"), study.LOOSE.items())
def test_students_without_pairs_have_the_terms_of_their_name(
    name, how, domain, quick, kept, played
):
    pseudo, features = how
    study.loose_student(domain, quick, 0, name, kept)
    (cycle, *_), (game, data, training, _) = played
    assert game.teacher is cycle.forth
    assert same(game.discriminator, cycle.judge_b)
    assert (game.ask.recon > 0) == pseudo
    assert (game.ask.distill > 0) == features
    assert not game.paired
    assert not data.paired
    assert training == quick.student


def test_networks_that_learn_alone(domain, quick, kept, played):
    for name in ("teacher", "blocks", "up", "everything", "scratch 0.5"):
        study.network(domain, quick, 3, name, kept)
    parts = [game.generator.separable for game, *_ in played]
    assert [set(one) for one in parts] == [
        set(), {"blocks"}, {"up"}, {"down", "blocks", "up"}, {"blocks"},
    ]  # fmt: skip
    assert [game.generator.channels.first for game, *_ in played] == [2, 2, 2, 2, 1]
    assert {how["seed"] for *_, how in played} == {1003}
    assert all(isinstance(game, gan.Pix2PixTeacher) for game, *_ in played)


def test_the_supernet_learns_from_the_teacher_with_its_discriminator(domain, quick, kept, played):
    own = study.train_supernet(domain, quick, 2, kept)
    other = study.train_supernet(domain, quick, 2, kept, 1)
    (teacher, *_), (game, _, training, how), (again, _, _, further) = played
    assert game.teacher is teacher.generator
    assert again.teacher is teacher.generator
    assert same(game.discriminator, teacher.discriminator)
    assert game.space == study.space_of(quick)
    assert not same(own.network, other.network)
    assert how["seed"] == 2
    assert further["seed"] not in (2, 1002)
    assert training == quick.supernet


def test_the_full_pipeline_goes_from_a_mobile_teacher_to_a_sorted_supernet(
    domain, quick, kept, played
):
    quick = replace(quick, ngf=4, shares=(1.0, 0.75, 0.5), coarse=(1.0,))
    made = study.full_pipeline(domain, quick, 0, kept)
    (teacher, *_), (distilling, *_), (game, *_) = played
    assert set(teacher.generator.separable) == {"blocks"}
    assert distilling.teacher is teacher.generator
    assert distilling.student.config == (3,) * 8
    assert same(distilling.discriminator, teacher.discriminator)
    assert made.space.widths == ((3, 2),) * 8
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        wanted = distilling.student.eval()(x)
        torch.testing.assert_close(game.student.eval()(x), wanted, rtol=1e-3, atol=1e-5)


def test_every_name_leads_to_a_network_of_its_own(quick):
    names = {*study.core_names(quick), *study.loose_names(), *study.FURTHER}
    assert set(named._makers(quick)) == names


def test_another_name_is_refused(domain, quick, kept):
    with pytest.raises(ValueError, match=r"^name must be one of teacher, .*; got 'pupil'"):
        study.network(domain, quick, 0, "pupil", kept)


def test_two_sets_become_pairs_by_the_unpaired_teacher(tmp_path, own_file, played):
    options = study.Options(paired=False, ngf=4)
    domain, settings = study.prepare(own_file(paired=False), "smoke", options)
    assert domain.pairs is None
    pairs = study.pairs_of(domain, settings, tmp_path)
    (cycle, *_) = played[0]
    made = gan.translated(cycle.forth, domain.loose.a(domain.loose.a_train))
    assert pairs.paired
    assert torch.equal(pairs.a_train, domain.loose.a_train)
    assert (pairs.b(pairs.b_train) - made).abs().max() <= 1 / 255 + 1e-6
    assert len(pairs.b_test) == len(domain.loose.a_test)


def test_the_widest_uniform_configuration_just_fits(domain, quick, kept, played):
    quick = replace(quick, ngf=8, budget=0.2)
    allowed = study.allowance(domain, quick, 0, kept)
    (width,) = set(study.widest_uniform(domain, quick, 0, kept))
    (wide,) = (study.train_supernet(domain, quick, 0, kept).network,)
    assert wide.cost((width,) * 8, domain.size).exact <= allowed
    assert wide.cost((width + 1,) * 8, domain.size).exact > allowed
