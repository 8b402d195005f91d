"""How far a student's answers are from its teacher's (section 3.3 of the method).

    KL_i = sum_c p_T[i,c] (log p_T[i,c] - log p_S[i,c]),  p = softmax(z / tau)
    L = mean_i KL_i                                                                      (1)

None of the published code paths multiplies by tau^2, so the gradient is (p_S - p_T) / (B tau): at
tau = 8 a 64 times smaller step than in other chapters for SGD, nearly no difference for Adam. The
logarithm of the softmax is taken in one go, in float32 at least. (The TensorFlow path clips
probabilities at 1e-7, which is wrong for logits far apart.)
"""

from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.distill.classic import kd_loss
from smallnets.losses import check_finite, check_pair, kl_divergence, to_float32

LOSSES = ("kl", "argmax", "top_k", "l2", "l1")


def distill_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 8.0,
    squared: bool = False,
) -> Tensor:
    """Equation (1), or tau^2 times it.

    Args:
        student_logits, teacher_logits: (batch, classes).
        temperature: tau, above 0: 8 for images, 5 for video.
        squared: multiply by tau^2, as `smallnets.distill.kd_loss` does.

    Returns:
        A scalar in nats, float32 or wider; no gradient reaches the teacher.

    Raises:
        ValueError: shapes differ or are not (batch, classes), or a temperature not above 0.
    """
    if squared:
        return kd_loss(student_logits, teacher_logits, temperature)
    checks.above("temperature", temperature, 0)
    check_pair(student_logits, teacher_logits)
    return kl_divergence(student_logits, teacher_logits.detach(), temperature)


def argmax_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy with the teacher's first class, mean over the batch.

    Raises:
        ValueError: shapes differ or are not (batch, classes), or a teacher that is not finite.
    """
    check_pair(student_logits, teacher_logits)
    check_finite("teacher logits", teacher_logits)
    return F.cross_entropy(to_float32(student_logits), teacher_logits.argmax(dim=1))


def top_k_loss(
    student_logits: Tensor, teacher_logits: Tensor, k: int, temperature: float = 8.0
) -> Tensor:
    """Equation (1) with a teacher that knows only its k likeliest classes.

    Their tempered probabilities are scaled to sum 1, and the others are 0. k = 1 is `argmax_loss`
    of tempered logits, k = the number of classes is `distill_kl`.

    Args:
        student_logits, teacher_logits: (batch, classes).
        k: 1 to the number of classes.
        temperature: above 0.

    Raises:
        ValueError: shapes differ or are not (batch, classes), or a number out of range.
    """
    checks.above("temperature", temperature, 0)
    check_pair(student_logits, teacher_logits)
    checks.between("k", checks.whole("k", k, 1), 1, teacher_logits.shape[1])
    best = to_float32(teacher_logits.detach()).topk(k, dim=1)
    target = F.log_softmax(best.values / temperature, dim=1)
    student = F.log_softmax(to_float32(student_logits) / temperature, dim=1)
    return F.kl_div(student.gather(1, best.indices), target, reduction="batchmean", log_target=True)


def logit_loss(student_logits: Tensor, teacher_logits: Tensor, power: int = 2) -> Tensor:
    """Mean over batch and classes of |difference|^power of the logits, power 1 or 2.

    Raises:
        ValueError: shapes differ or are not (batch, classes), or another power.
    """
    check_pair(student_logits, teacher_logits)
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2; got {power!r}")
    difference = to_float32(student_logits) - to_float32(teacher_logits.detach())
    return difference.abs().mean() if power == 1 else difference.square().mean()


def imitation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: str = "kl",
    *,
    temperature: float = 8.0,
    squared: bool = False,
    k: int = 1,
) -> Tensor:
    """One of `LOSSES` by its name; a scalar.

    Args:
        student_logits, teacher_logits: (batch, classes).
        kind: "kl", "argmax", "top_k", "l2" or "l1".
        temperature: of "kl" and "top_k".
        squared: multiply these two by its square.
        k: of "top_k".
    """
    checks.one_of("loss", kind, LOSSES)
    if kind == "kl":
        return distill_kl(student_logits, teacher_logits, temperature, squared)
    if kind == "top_k":
        factor = temperature**2 if squared else 1.0
        return factor * top_k_loss(student_logits, teacher_logits, k, temperature)
    if kind == "argmax":
        return argmax_loss(student_logits, teacher_logits)
    return logit_loss(student_logits, teacher_logits, 2 if kind == "l2" else 1)


def agreement_rate(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Share of a batch for which both name the same class, a scalar: `measure.agreement` for every
    step of a training, which stays on the device and takes what is not finite.
    """
    check_pair(student_logits, teacher_logits)
    return (student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).float().mean()
