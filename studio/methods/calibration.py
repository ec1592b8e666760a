"""How good, how honest and how unanimous an ensemble is: accuracy, likelihood, calibration, disagreement, foreignness.

Calibration error after Naeini, Cooper and Hauskrecht (AAAI 2015) and Guo et al. (2017, arXiv 1706.04599); telling
foreign inputs by the largest probability after Hendrycks and Gimpel (2016, arXiv 1610.02136).
"""

__all__ = [
    "Scores", "accuracy", "auroc", "calibration_error", "disagreement", "disagreements", "ensemble_scores",
    "negative_log_likelihood",
]  # fmt: skip

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What an ensemble reached: shares lie in [0, 1], and the ensemble's prediction is the mean of the softmaxes.

    `train_loss` is the mean cross-entropy of the members over the training set, wrong labels included.
    """

    train_loss: float
    accuracy: float
    nll: float
    ece: float
    disagreement: float
    member_accuracy: float
    foreign_auroc: float
    noise_accuracy: float


def ensemble_scores(
    train_losses: Float[Tensor, " n"],
    test: Float[Tensor, "n t k"],
    labels: Int[Tensor, " t"],
    noisy: Float[Tensor, "n t k"],
    foreign: Float[Tensor, "n u k"],
) -> Scores:
    """Return the scores of an ensemble from its members' probabilities on the test set, on it under noise, and beyond.

    A foreign input should be told by a smaller largest probability than the test set's.
    """
    mean = test.double().mean(dim=0)
    votes = test.argmax(dim=2)
    unsure, more_unsure = (1 - part.double().mean(dim=0).amax(dim=1) for part in (test, foreign))
    return Scores(
        train_loss=train_losses.double().mean().item(),
        accuracy=accuracy(mean, labels),
        nll=negative_log_likelihood(mean, labels),
        ece=calibration_error(mean, labels),
        disagreement=disagreement(votes),
        member_accuracy=(votes == labels).double().mean().item(),
        foreign_auroc=auroc(unsure, more_unsure),
        noise_accuracy=accuracy(noisy.double().mean(dim=0), labels),
    )


def accuracy(probabilities: Float[Tensor, "t k"], labels: Int[Tensor, " t"]) -> float:
    """Return the share of rows whose largest probability is the label's."""
    return (probabilities.argmax(dim=1) == labels).double().mean().item()


def negative_log_likelihood(probabilities: Float[Tensor, "t k"], labels: Int[Tensor, " t"]) -> float:
    """Return the mean of -log p(label), in nats."""
    chosen = probabilities.double().gather(1, labels[:, None])
    return -chosen.clamp(min=torch.finfo(torch.float64).tiny).log().mean().item()


def calibration_error(probabilities: Float[Tensor, "t k"], labels: Int[Tensor, " t"], bins: int = 15) -> float:
    """Return the expected calibration error over `bins` equal-width bins of confidence.

    The sum over bins of the share of rows in it times |accuracy - mean confidence|; a bin includes its upper edge.
    """
    confidence, guess = probabilities.double().max(dim=1)
    right = (guess == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=probabilities.device)[1:-1]
    place = torch.bucketize(confidence, edges)
    gaps = torch.zeros(bins, dtype=torch.float64, device=probabilities.device).index_add(0, place, right - confidence)
    return gaps.abs().sum().item() / len(labels)


def disagreements(votes: Int[Tensor, "n t"]) -> Float[Tensor, "n n"]:
    """Return for every pair of members the share of inputs on which their votes differ; 0 on the diagonal."""
    return (votes[:, None] != votes[None]).double().mean(dim=2)


def disagreement(votes: Int[Tensor, "n t"]) -> float:
    """Return the mean over pairs of members of the share of inputs on which their votes differ; 0 for one member."""
    n = len(votes)
    return disagreements(votes).sum().item() / (n * (n - 1)) if n > 1 else 0.0


def auroc(low: Float[Tensor, " a"], high: Float[Tensor, " b"]) -> float:
    """Return the chance that a draw of `high` exceeds one of `low`, ties counting half (area under the ROC curve)."""
    order = low.double().sort().values
    high = high.double().contiguous()
    below, upto = (torch.searchsorted(order, high, right=right).double() for right in (False, True))
    return ((below + upto) / (2 * len(low))).mean().item()
