"""All four families from teacher to export on small scenes, and what a step does and does not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets import gan, measure
from smallnets.data.scenes import scenes
from smallnets.gan.compression import Pictures
from smallnets.gan.networks import (
    ConfigSpace,
    MUNITDiscriminator,
    MUNITGenerator,
    PatchDiscriminator,
    ResNetGenerator,
    SPADEDiscriminator,
    SPADEGenerator,
    SuperMUNITGenerator,
    SuperResNetGenerator,
    SuperSPADEGenerator,
    assemble,
    prune_by_l1,
)
from smallnets.training import seeded

ONE = gan.GANTraining(epochs=1, decay_epochs=0, batch_size=2, lr=1e-3, device="cpu")
FEW = gan.Evolution(population=4, generations=2)
EIGHT = ConfigSpace(((4, 2),) * 8)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALLNETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def resnet(seed=0, separable=()):
    with seeded(seed):
        return ResNetGenerator(3, 3, 4, 3, separable=separable)


def supernet(seed=1):
    with seeded(seed):
        return SuperResNetGenerator(3, 3, 4, 3)


def judge(channels, seed=2):
    with seeded(seed):
        return PatchDiscriminator(channels, 4, 1)


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(before, after):
    return all(torch.equal(value, after[name]) for name, value in before.items())


def paired_game(teacher=None, ask=None, paired=True, space=EIGHT, **more):
    teacher, student = resnet() if teacher is None else teacher, supernet()
    with seeded(3):
        maps = gan.feature_maps(student, teacher)
    ask = (gan.Objective() if paired else gan.PUBLISHED["horse2zebra"]) if ask is None else ask
    judges = judge(6 if paired else 3)
    return gan.Compression(student, judges, teacher, maps, space, ask=ask, paired=paired, **more)


def from_supernet_to_export(game, data, folder, score, size, calibration=()):
    """Steps behind the teacher; every one is done again and gives the same."""
    start = state(game.student)

    def steps():
        history = gan.train_supernet(game, data, ONE, seed=0, score=score, cache_dir=folder)
        budget = game.student.cost(game.space.largest(), size).exact * 0.6
        found = gan.search_supernet(
            game.student, game.space, score, budget, size, settings=FEW, cache_dir=folder
        )
        tuned = gan.fine_tune(game, found.best, data, ONE, seed=0, cache_dir=folder)
        network = gan.export(game.student, found.best, calibration=calibration, cache_dir=folder)
        return history, found, tuned, network

    history, found, tuned, network = steps()
    assert {"largest", "smallest", "G", "D"} <= set(history[0])
    assert found.cost <= 0.6 * game.student.cost(game.space.largest(), size).exact
    kinds = {one.name.split("-")[0] for one in folder.iterdir()}
    assert kinds >= {"supernet", "search", "export"}
    assert "fine" in kinds
    assert not same(start, game.student.state_dict())
    return found, tuned, network


def test_pairs(tmp_path):
    data = scenes("paired", train=4, test=2, size=16)
    teacher, judges = resnet(separable=("blocks",)), judge(6)
    history = gan.train_teacher(
        gan.Pix2PixTeacher(teacher, judges), data, ONE, seed=0, cache_dir=tmp_path
    )
    assert history[0]["G"] == pytest.approx(history[0]["G_gan"] + history[0]["G_recon"])
    student = gan.sorted_supernet(teacher, cache_dir=tmp_path)
    x = data.a(data.a_test)
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(x), teacher.eval()(x), rtol=1e-4, atol=1e-5)
    game = gan.Compression(student, judges, teacher, gan.feature_maps(student, teacher), EIGHT)
    score = gan.score_of(student, x, gan.Distance(data.b(data.b_test)))
    found, tuned, network = from_supernet_to_export(game, data, tmp_path, score, data.size)
    assert len(tuned) == 1
    again = gan.export(student, found.best, cache_dir=tmp_path)
    with torch.no_grad():
        assert torch.equal(network(x), student(x, found.best))
        assert torch.equal(again(x), network(x))
    assert measure.parameters(network) == student.cost(found.best, data.size).parameters


def test_no_pairs(tmp_path):
    data = scenes("unpaired", train=4, test=2, size=16)
    forth, back, judge_a, judge_b = resnet(), resnet(5), judge(3), judge(3, 6)
    history = gan.train_teacher(
        gan.CycleGANTeacher(forth, back, judge_a, judge_b, pool=1), data, ONE, seed=0
    )
    assert {"G_cycle_a", "G_identity_b", "D_a", "D_b"} <= set(history[0])
    game = replace(paired_game(forth, paired=False), discriminator=judge_b)
    inputs = data.a(data.a_test)
    score = gan.score_of(game.student, inputs, gan.Distance(gan.translated(forth, inputs)))
    _, _, network = from_supernet_to_export(game, data, tmp_path, score, data.size)
    assert network(inputs).shape == (2, 3, 16, 16)


def test_label_maps(tmp_path):
    data = scenes("semantic", train=2, test=2, size=64)
    with seeded(0):
        reader = gan.LabelReader(6, 3, 4)
        teacher = SPADEGenerator(7, 3, 2, upsampling="normal")
        student = SuperSPADEGenerator(7, 3, 2, upsampling="normal")
        judges = SPADEDiscriminator(10, 2, 3, 2)
    perceptual = gan.PerceptualLoss(reader, ["first", "third"])
    training = replace(ONE, lr=1e-4, lr_discriminator=4e-4, betas=(0.0, 0.9))
    game = gan.GauGANTeacher(teacher, judges, perceptual=perceptual)
    history = gan.train_teacher(game, data, training, seed=0)
    assert {"G_gan", "G_matching", "G_perceptual", "D"} <= set(history[0])
    space = ConfigSpace(((2, 1),) * 8)
    maps = gan.feature_maps(student, teacher)
    game = gan.SPADECompression(student, judges, teacher, maps, space, perceptual=perceptual)
    x = data.a(data.a_test)
    with pytest.raises(ValueError, match=r"^a supernet with BatchNorm needs batches for cal"):
        gan.score_of(student, x, gan.Distance(data.b(data.b_test)))
    calibration = gan.calibration_batches(data, 2, 2)
    iou = gan.MeanIoU(reader.labels, data.labels_test, 6)
    score = gan.score_of(student, x, iou, calibration=calibration)
    found, _, network = from_supernet_to_export(game, data, tmp_path, score, data.size, calibration)
    assert 0 <= found.score <= 100
    assert {"G_matching", "G_perceptual", "G_distill"} <= set(game_terms(game, data))
    narrow, wide = space.smallest(), space.largest()
    once = score(narrow)
    score(wide)
    assert score(narrow) == once  # whatever was calibrated before
    assert network(x).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"^a supernet with BatchNorm needs batches for cal"):
        gan.export(student, narrow)


def test_two_styles(tmp_path):
    data = scenes("styles", train=4, test=2, size=16)
    with seeded(0):
        of_a, of_b = (MUNITGenerator(3, 2, style_dim=3, mlp_dim=4, n_res=2) for _ in range(2))
        judges = [MUNITDiscriminator(3, 2, 2, 2) for _ in range(2)]
        student = SuperMUNITGenerator(3, 2, style_dim=3, mlp_dim=4, n_res=2)
    history = gan.train_teacher(gan.MUNITTeacher(of_a, of_b, *judges), data, ONE, seed=0)
    assert {"G_image_a", "G_style_b", "G_content_a", "G_gan_b"} <= set(history[0])
    teacher = assemble(of_a, of_b)
    maps = gan.feature_maps(student, teacher)
    space = ConfigSpace(((2, 1),) * len(student.full_config))
    game = gan.MUNITCompression(student, judges[1], teacher, maps, space)
    x = data.a(data.a_test)
    score = gan.score_of(student, x, gan.Distance(gan.translated(teacher, x)))
    found, _, network = from_supernet_to_export(game, data, tmp_path, score, data.size)
    assert network(x).shape == (2, 3, 16, 16)
    with torch.no_grad():
        style = torch.zeros(2, 3, 1, 1)
        assert torch.equal(network(x, style=style), student(x, found.best, style=style))
    odd, even = game_terms(game, data, 1), game_terms(game, data, 0)
    assert "G_style" in odd
    assert "G_style" not in even
    single = replace(game, student=network, space=None, features=gan.feature_maps(network, teacher))
    assert set(game_terms(single, data, 1)) == set(odd)
    plain = replace(single, features=None, ask=gan.MUNITObjective(content=0))
    assert set(game_terms(plain, data, 1)) == set(odd) - {"G_content"}


def batch_of(data, step=0, seed=0):
    a, b = data.a(data.a_train[:2]), data.b(data.b_train[:2])
    draw = torch.Generator().manual_seed(seed)
    return Pictures(a, b, torch.arange(2), torch.zeros(2, dtype=torch.bool), step, draw)


def game_terms(game, data, step=0, batch=None):
    for network in game.trained().values():
        network.train()
    game.prepare(data, ONE, torch.device("cpu"))
    return game.step(batch or batch_of(data, step), game.optimizers(ONE))


@pytest.fixture(scope="module")
def pairs(_cache):
    return scenes("paired", train=4, test=2, size=16)


def test_a_step_leaves_the_teacher_as_it_was(pairs):
    game = paired_game()
    teacher, student = state(game.teacher), state(game.student)
    game_terms(game, pairs)
    assert same(teacher, game.teacher.state_dict())
    assert not same(student, game.student.state_dict())
    assert not any(one.grad is not None for one in game.teacher.parameters())


def test_pseudo_pairs_never_read_the_truth_for_reconstruction(pairs):
    batch = batch_of(pairs)
    other = batch._replace(b=-batch.b)
    fresh = other._replace(draw=torch.Generator().manual_seed(0))
    one, two = (game_terms(paired_game(paired=False), pairs, batch=one) for one in (batch, fresh))
    for name in ("G_gan", "G_recon", "G_distill", "D_fake"):
        assert torch.equal(one[name], two[name])
    assert not torch.equal(one["D_real"], two["D_real"])
    again = batch._replace(draw=torch.Generator().manual_seed(0))
    truth = game_terms(paired_game(), pairs, batch=again)
    changed = game_terms(
        paired_game(), pairs, batch=other._replace(draw=torch.Generator().manual_seed(0))
    )
    assert not torch.equal(truth["G_recon"], changed["G_recon"])


def descent(game):
    """Plain steps along gradients: Adam's would make the rounding of zeros large."""
    game.prepare(scenes("paired", train=4, test=2, size=16), ONE, torch.device("cpu"))
    learned = {"D": [game.discriminator], "G": [game.student, game.features]}
    return {
        name: torch.optim.SGD([p for one in networks for p in one.parameters()], lr=1e-2)
        for name, networks in learned.items()
    }


def test_one_pass_gives_the_gradients_of_the_published_order(pairs):
    """Zero both; discriminator's loss on detached images; generator's through the old one."""
    ours, theirs = paired_game(), paired_game()
    ask, batch = ours.ask, batch_of(pairs)
    ours.step(batch, descent(ours))
    optimizers = descent(theirs)
    config = theirs.config(batch_of(pairs))
    with torch.no_grad():
        _, wanted = theirs.teacher(batch.a, taps=True)
    image, taps = theirs.student(batch.a, config, taps=True)
    fake = theirs.discriminator(torch.cat([batch.a, image.detach()], 1))
    real = theirs.discriminator(torch.cat([batch.a, batch.b], 1))
    (0.5 * sum(gan.discriminator_losses(fake, real, ask.mode))).backward()
    for one in theirs.discriminator.parameters():
        one.requires_grad_(False)
    answer = theirs.discriminator(torch.cat([batch.a, image], 1))
    loss = gan.generator_loss(answer, ask.mode) + 100 * (image - batch.b).abs().mean()
    (loss + theirs.features(taps, wanted)[0]).backward()
    optimizers["D"].step()
    optimizers["G"].step()
    for a, b in zip(ours.trained().values(), theirs.trained().values(), strict=True):
        for name, value in a.state_dict().items():
            torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_remembered_answers_are_the_teachers(pairs):
    ours, theirs = paired_game(paired=False), paired_game(paired=False)
    data = replace(pairs, paired=False)
    with_memory = gan.play(ours, data, ONE, seed=0)
    without = gan.play(theirs, data, replace(ONE, remember=False), seed=0)
    for name, value in with_memory[0].items():
        assert without[0][name] == pytest.approx(value, rel=1e-4), name


def test_only_the_slice_of_a_step_learns(pairs):
    game = paired_game(space=ConfigSpace(((2,),) * 8))
    before = state(game.student)
    game_terms(game, pairs)
    first = game.student.state_dict()["model.1.weight"]
    assert torch.equal(first[2:], before["model.1.weight"][2:])
    assert not torch.equal(first[:2], before["model.1.weight"][:2])


def test_a_biased_supernet_draws_small_widths(pairs):
    bias = tuple(map(tuple, EIGHT.probabilities("geometric", 1000)))
    game = replace(paired_game(), bias=bias)
    drawn = [game.config(batch_of(pairs, seed=seed)) for seed in range(5)]
    assert sum(width for config in drawn for width in config) / 40 < 2.2


@pytest.mark.parametrize("reconstruction", ["l2", "smooth_l1", "perceptual"])
def test_other_reconstructions(pairs, reconstruction):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    perceptual = gan.PerceptualLoss(network, ["1"]) if reconstruction == "perceptual" else None
    ask = gan.Objective(reconstruction=reconstruction)
    game = paired_game(ask=ask, perceptual=perceptual)
    assert float(game_terms(game, pairs)["G_recon"].detach()) > 0


def test_wasserstein_with_its_penalty(pairs):
    terms = game_terms(paired_game(ask=gan.Objective("wgangp", penalty=10)), pairs)
    total = 0.5 * (terms["D_fake"] + terms["D_real"]) + terms["D_penalty"]
    torch.testing.assert_close(terms["D"], total)


def test_alignment_instead_of_maps(pairs):
    game = replace(paired_game(), features=gan.KernelAlignment())
    assert -4 <= float(game_terms(game, pairs)["G_distill"].detach()) < 0


def test_a_pruned_student_learns_from_the_network_that_it_came_from(pairs):
    teacher = resnet(separable=("blocks",))
    student = prune_by_l1(teacher, 2)
    with seeded(3):
        maps = gan.feature_maps(student, teacher)
    game = gan.Compression(student, judge(6), teacher, maps)
    history = gan.play(game, pairs, replace(ONE, epochs=8, lr=1e-2), seed=0)
    assert history[-1]["G_distill"] < history[0]["G_distill"]
    assert history[-1]["G_recon"] < history[0]["G_recon"]


def test_a_game_without_a_teacher_is_training_from_scratch(pairs):
    ask = gan.Objective(distill=0)
    game = gan.Compression(resnet(), judge(6), ask=ask)
    assert set(game_terms(game, pairs)) == {"D_fake", "D_real", "D", "G_gan", "G_recon", "G"}
    alone = gan.Objective("lsgan", recon=0, distill=0)
    game = gan.Compression(resnet(), judge(3), ask=alone, paired=False)
    assert "G_recon" not in game_terms(game, pairs)


def teacher_of_itself():
    game = paired_game()
    return replace(game, teacher=game.student)


def test_a_teacher_that_no_term_needs_is_not_asked(pairs):
    silent = nn.Module()  # which answers nothing
    game = gan.Compression(resnet(), judge(6), silent, ask=gan.Objective(distill=0))
    assert "G_recon" in game_terms(game, pairs)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: gan.Compression(resnet(), judge(6)), "a distillation weight of 1.0 needs a teach"),
        (
            lambda: gan.Compression(resnet(), judge(6), resnet(5)),
            "a distillation weight of 1.0 needs feat",
        ),
        (
            lambda: gan.Compression(resnet(), judge(3), ask=gan.Objective(distill=0), paired=False),
            "without pairs the teacher's images are the target",
        ),
        (
            lambda: paired_game(ask=gan.Objective(reconstruction="perceptual")),
            "perceptual must be a PerceptualLoss",
        ),
        (teacher_of_itself, "teacher must not share"),
        (lambda: gan.Objective("wgan"), "mode must be one of hinge, lsgan, vanilla, wgangp; got"),
        (lambda: gan.Objective(recon=-1), "recon must be at least 0"),
        (
            lambda: gan.GauGANTeacher(resnet(), judge(6)),
            "a perceptual weight of 10.0 needs a Perc",
        ),
        (
            lambda: gan.MUNITCompression(resnet(), judge(3), ask=gan.MUNITObjective(content=0)),
            "a MUNIT student needs a teacher",
        ),
        (
            lambda: gan.MUNITCompression(resnet(), judge(3), resnet(5), gan.KernelAlignment()),
            "features of a MUNIT student must be FeatureMaps; got KernelAlignment",
        ),
        (lambda: gan.SPADEObjective(matching=-1), "matching must be at least 0"),
        (lambda: gan.MUNITObjective(style=-1.0), "style must be at least 0"),
    ],
)
def test_games_that_lack_something_are_refused(make, line):
    with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
        make()


def test_steps_refuse_what_does_not_fit(pairs):
    game = paired_game()
    apart = replace(pairs, paired=False)
    for one in (game, gan.Pix2PixTeacher(resnet(), judge(6))):
        with pytest.raises(ValueError, match=r"^this game needs pairs; got data without$"):
            gan.play(one, apart, ONE, seed=0)
    with pytest.raises(ValueError, match=r"^a supernet is trained with a space"):
        gan.train_supernet(replace(game, space=None), pairs, ONE, seed=0)
    with pytest.raises(ValueError, match=r"^width 0 of the configuration must be at most 4; got 9"):
        gan.train_supernet(replace(game, space=ConfigSpace(((9,),) * 8)), pairs, ONE, seed=0)
    calls = []
    with pytest.raises(ValueError, match=r"^budget must be at least \d"):
        gan.search_supernet(game.student, EIGHT, calls.append, 10, (16, 16))
    assert not calls
    with pytest.raises(ValueError, match=r"^method must be one of"):
        gan.search_supernet(game.student, EIGHT, calls.append, 10, (16, 16), method="luck")
    with pytest.raises(ValueError, match=r"^a search needs images that are held out; got none$"):
        gan.score_of(game.student, torch.zeros(0, 3, 16, 16), gan.Distance(torch.zeros(1)))
    with pytest.raises(ValueError, match=r"^images must be .* as the target; got"):
        gan.Distance(torch.zeros(2, 3, 8, 8))(torch.zeros(1, 3, 8, 8))


def test_a_reader_learns_to_read_and_measures(pairs, tmp_path):
    reader, history = gan.train_reader(
        pairs, replace(gan.reading.READING, epochs=25, batch_size=2), width=4, cache_dir=tmp_path
    )
    assert history[-1]["loss"] < history[0]["loss"]
    real = pairs.b(pairs.b_train)
    fid = gan.fid_from(reader, reader.features, real)
    assert fid(real) == pytest.approx(0, abs=1e-6)
    assert fid(-real) > 100 * max(fid(real), 1e-8)
    kid = gan.KID(fid.features, fid.real)
    assert kid(-real) > kid(real)
    iou = gan.MeanIoU(reader.labels, pairs.labels_train, 6)
    assert iou(real) > iou(-real)
    with pytest.raises(ValueError, match=r"^data must have label maps to read; got none$"):
        gan.train_reader(replace(pairs, labels_train=None))
