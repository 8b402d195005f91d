"""Similarity-preserving loss, forward and backward: closed-form gradient against the usual code.

The usual code is what re-implementations share: reshape, multiply, normalise, subtract, square,
sum, divide, and leave the gradient to autograd.
"""

import torch
from _race import race, report
from torch import Tensor
from torch.nn import functional as F

from smallnets.distill.similarity import sp_loss


def usual(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss as it is commonly written."""
    batch = student.shape[0]
    student, teacher = student.reshape(batch, -1), teacher.reshape(batch, -1)
    student_gram = F.normalize(torch.mm(student, student.t()))
    teacher_gram = F.normalize(torch.mm(teacher, teacher.t()))
    difference = teacher_gram - student_gram
    return (difference * difference).view(-1, 1).sum(0) / (batch * batch)


def main() -> None:
    torch.set_num_threads(1)
    for batch, channels, side in ((64, 128, 8), (128, 64, 8), (256, 64, 8)):
        student = torch.rand(batch, channels, side, side, requires_grad=True)
        teacher = torch.rand(batch, 2 * channels, side, side)

        def step(loss, student=student, teacher=teacher):
            student.grad = None
            loss(student, teacher).sum().backward()

        seconds = race({"ours": lambda: step(sp_loss), "usual": lambda: step(usual)}, rounds=60)
        report(f"SP loss, batch {batch}, {channels} x {side} x {side}", seconds, "ours")


if __name__ == "__main__":
    main()
