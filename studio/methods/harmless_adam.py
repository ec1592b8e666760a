"""Harmless diversity under Adam and a noisy loss: the correction beside Adam's step, and the budget it must keep.

Gong, Wu and Liu, ICML 2022, arXiv 2202.08376 (see `harmless`); Adam after Kingma and Ba, 2014, arXiv 1412.6980.

    predict   h_i = x_i - rate P_i m_i          m_i, v_i: Adam's bias-corrected moments,  P_i = 1 / (sqrt(v_i) + eps)
    correct   x_i <- h_i + delta_i,             delta_i = -eta_i P_i (g_i + lambda_i m_i)
              lambda_i = max(0, (-<m_i, P_i g_i> - slack_i / eta_i) / <m_i, P_i m_i>),   g_i = grad_i Phi
              |delta_i| <= reach_i rate |P_i m_i|
    check     F(x_new) <= F(h) + kappa max(0, F(x) - F(h))    on one and the same draw of the loss

A draw's own slope is mostly noise, so the slope that must not be climbed is Adam's first moment: it already is the
moving average (0.9) of the slopes, and an inner product is linear in it. The metric is Adam's as well: projecting
first and rescaling afterwards would lose the guarantee. The check costs two evaluations of the loss without gradient,
so it may be made once in a few steps; it halves the reach of whoever spent too much, and lets it grow back otherwise.
The noisy form is ours; the paper's was not at hand.
"""

__all__ = ["HARMLESS", "adam_correction", "adam_moments", "adjusted_reach", "fade", "slack_of", "within_budget"]

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.methods.harmless import harmless_direction

HARMLESS = ("point", "sum", "max")
BETAS = (0.9, 0.999)
EPSILON = 1e-8
TINY = 1e-30
GROWTH = 1.25


def adam_moments(
    slopes: Float[Tensor, "n d"], moments: tuple[Tensor, Tensor], step: int
) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Return Adam's two new moments, the bias-corrected first one, and the scale sqrt(v) + eps it is divided by.

    `step` counts from 1; Adam's step downhill is `-rate * first / scale`.
    """
    first = BETAS[0] * moments[0] + (1 - BETAS[0]) * slopes
    second = BETAS[1] * moments[1] + (1 - BETAS[1]) * slopes * slopes
    scale = (second / (1 - BETAS[1] ** step)).sqrt() + EPSILON
    return (first, second), first / (1 - BETAS[0] ** step), scale


def adam_correction(
    first: Float[Tensor, "n d"],
    scale: Float[Tensor, "n d"],
    pushes: Float[Tensor, "n d"],
    slack: Float[Tensor, " n"],
    reach: Float[Tensor, " n"],
    rate: float,
    together: bool,
    cap: float = 1e4,
) -> Float[Tensor, "n d"]:
    """Return the corrections delta_i, to be added after Adam's step `-rate * first / scale`.

    To first order <first_i, delta_i> <= slack_i (`together`: their sums), and no correction is longer than `reach_i`
    times its member's Adam step (`together`: all as one vector, `reach`'s smallest). `slack` is at least 0.
    A reach or a push of 0 gives no correction; `cap` bounds the multiplier.
    """
    metric = 1 / scale
    most = reach * rate * _lengths(metric * first, together)
    if together:
        most = most.amin().expand_as(most)
    eta = most / (_lengths(metric * pushes, together) + TINY)
    delta = harmless_direction(first, pushes, slack, eta.clamp(min=TINY), together, metric, cap)
    return delta * (most / (_lengths(delta, together) + TINY)).clamp(max=1.0)[:, None]


def slack_of(losses: Float[Tensor, " n"], method: str) -> Float[Tensor, " n"]:
    """Return what each member may climb: up to the worst one for the method `max`, else nothing."""
    return losses.max() - losses if method == "max" else torch.zeros_like(losses)


def within_budget(
    before: Float[Tensor, " n"],
    predicted: Float[Tensor, " n"],
    corrected: Float[Tensor, " n"],
    kappa: float,
    method: str,
) -> Bool[Tensor, " n"]:
    """Return which members' corrections spent at most `kappa` of the decrease, all three losses on the same draw.

    The budget is that of the sum for the method `sum` (all members answer alike), of the maximum for `max`, and each
    member's own otherwise.
    """
    if method == "sum":
        before, predicted, corrected = (part.sum().expand(len(part)) for part in (before, predicted, corrected))
    elif method == "max":
        before, predicted = (part.max().expand(len(part)) for part in (before, predicted))
    return corrected <= predicted + kappa * (before - predicted).clamp(min=0)


def adjusted_reach(
    reach: Float[Tensor, " n"], kept: Bool[Tensor, " n"], most: float, growth: float = GROWTH
) -> Float[Tensor, " n"]:
    """Return the reach of the next steps: halved where the budget was not kept, else grown, at most `most`."""
    return torch.where(kept, (growth * reach).clamp(max=most), 0.5 * reach)


def fade(step: int, steps: int, settle: float = 0.2) -> float:
    """Return the share of the reach left before step `step` (from 0): 1, falling to 0 over the last part of a run."""
    return min(1.0, max(0.0, (steps - 1 - step) / max(settle * steps, 1.0)))


def _lengths(vectors: Float[Tensor, "n d"], together: bool) -> Float[Tensor, " n"]:
    """Return the length of each row, or for every row that of the whole."""
    return vectors.norm().expand(len(vectors)) if together else vectors.norm(dim=1)
