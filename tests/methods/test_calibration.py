"""Calibration and the like: known answers, and what another implementation says."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from studio.core.seeds import generator_from
from studio.methods.calibration import (
    accuracy,
    auroc,
    calibration_error,
    disagreement,
    disagreements,
    ensemble_scores,
    negative_log_likelihood,
)


def draw(name, *shape):
    return torch.rand(*shape, generator=generator_from(11, name), dtype=torch.float64)


def test_calibrated_predictions_have_next_to_no_calibration_error():
    """F35: labels drawn from the predictions themselves, 100,000 of them: ECE < 0.01; overconfident ones have more."""
    logits = 3 * torch.randn(100_000, 10, generator=generator_from(0, "logits"), dtype=torch.float64)
    chances = logits.softmax(dim=1)
    labels = torch.multinomial(chances, 1, generator=generator_from(0, "labels")).flatten()
    assert calibration_error(chances, labels) < 0.01
    assert calibration_error((3 * logits).softmax(dim=1), labels) > 0.05


def test_the_uniform_prediction_costs_the_logarithm_of_the_classes():
    """F35: NLL = log K to 1e-9."""
    for k in (2, 10, 1000):
        uniform = torch.full((50, k), 1 / k, dtype=torch.float64)
        assert negative_log_likelihood(uniform, torch.arange(50) % k) == pytest.approx(math.log(k), abs=1e-9)


def test_a_certain_mistake_stays_finite():
    sure = torch.tensor([[1.0, 0.0]])
    assert math.isfinite(negative_log_likelihood(sure, torch.tensor([1])))
    assert negative_log_likelihood(sure, torch.tensor([0])) == 0
    assert calibration_error(sure, torch.tensor([1])) == 1 and accuracy(sure, torch.tensor([0])) == 1


def test_calibration_error_by_hand():
    """Two bins: 0.6 sure and right half the time, 0.9 sure and always right: (2 * 0.1 + 2 * 0.1) / 4."""
    chances = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    assert calibration_error(chances, torch.tensor([0, 1, 0, 0])) == pytest.approx(0.1, abs=1e-6)


def test_calibration_error_is_that_of_numpy_histograms():
    chances = torch.randn(5000, 4, generator=generator_from(1, "logits"), dtype=torch.float64).softmax(dim=1)
    labels = torch.randint(4, (5000,), generator=generator_from(1, "labels"))
    confidence, right = chances.max(dim=1).values.numpy(), (chances.argmax(dim=1) == labels).numpy()
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(chances, labels) == pytest.approx(total, abs=1e-12)


def test_disagreement_counts_pairs():
    votes = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 0, 0]])
    assert disagreements(votes).tolist() == [[0, 0.25, 0.75], [0.25, 0, 0.5], [0.75, 0.5, 0]]
    assert disagreement(votes) == pytest.approx(0.5) and disagreement(votes[:1]) == 0


def test_auroc_counts_every_pair_and_ties_half():
    low, high = (10 * draw("low", 300)).round(), (10 * draw("high", 200) + 2).round()
    pairs = (high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()
    assert auroc(low, high) == pytest.approx(pairs.mean().item(), abs=1e-12)
    assert auroc(low, low) == pytest.approx(0.5) and auroc(low, low + 100) == 1 and auroc(low + 100, low) == 0


def test_scores_of_a_known_ensemble():
    """Two members, one always right and one never; foreign inputs leave them at odds and so unsure."""
    labels = torch.tensor([0, 1])
    right = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    test = torch.stack([right, right.flip(1) * 0.5 + 0.25])
    scores = ensemble_scores(torch.tensor([1.0, 3.0]), test, labels, test, torch.full((2, 3, 2), 0.5))
    assert scores.train_loss == 2 and scores.accuracy == 1 and scores.member_accuracy == 0.5
    assert scores.disagreement == 1 and scores.noise_accuracy == 1 and scores.foreign_auroc == 1
