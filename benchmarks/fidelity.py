"""Hot paths of the fidelity study against the usual ways: distributions, and one student a time.

The usual code for a divergence builds two categorical distributions; the usual way to compare six
students is to train six times.
"""

import torch
from _race import race, report
from torch.distributions import Categorical, kl_divergence

from smallnets import measure
from smallnets.data import Dataset
from smallnets.distill import fidelity as fid
from smallnets.studies.networks import build_network
from smallnets.training import TrainSettings


def divergences() -> None:
    """The loss of a training step, forward and backward."""
    for batch, classes in ((64, 100), (64, 1000)):
        teacher = torch.randn(batch, classes)
        student = torch.randn(batch, classes, requires_grad=True)

        def ours(teacher=teacher, student=student):
            student.grad = None
            fid.soft_cross_entropy(
                student_logits=student, teacher_logits=teacher, temperature=4.0
            ).backward()

        def usual(teacher=teacher, student=student):
            student.grad = None
            pair = Categorical(logits=teacher / 4), Categorical(logits=student / 4)
            (16 * kl_divergence(*pair).mean()).backward()

        seconds = race({"ours": ours, "distributions": usual}, rounds=200)
        report(f"Soft targets, batch {batch}, {classes} classes", seconds, "ours")


def measures() -> None:
    """Predictive KL of a whole test set."""
    teacher, student = torch.randn(10_000, 100), torch.randn(10_000, 100)

    def usual():
        pair = Categorical(logits=teacher.double()), Categorical(logits=student.double())
        return kl_divergence(*pair).mean().item()

    def ours():
        return measure.predictive_kl(student_logits=student, teacher_logits=teacher)

    rivals = {"ours": ours, "distributions": usual}
    report("Predictive KL, 10,000 x 100, float64", race(rivals), "ours")


def students() -> None:
    """Six students under five teachers: together, and one by one."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (640, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(640) % 10
    names = tuple(map(str, range(10)))
    data = Dataset("random", pixels, labels, pixels[:10], labels[:10], names, flips=False)
    settings = TrainSettings(epochs=1, batch_size=64, device="cpu")
    teacher = fid.Ensemble([build_network("convnet-8", data, 90 + i) for i in range(5)])

    def train(*seeds):
        networks = {str(seed): build_network("convnet-8", data, seed) for seed in seeds}
        objectives = dict.fromkeys(networks, fid.Objective())
        fid.distill_from_ensemble(networks, teacher, data, objectives, settings, seed=0)

    rivals = {
        "together": lambda: train(*range(6)),
        "one by one": lambda: [train(seed) for seed in range(6)],
    }
    report("Six students of five teachers, an epoch", race(rivals, rounds=5), "together")


if __name__ == "__main__":
    torch.set_num_threads(1)
    divergences()
    measures()
    students()
