"""How a measured level moves over time, and what that means for its mean.

Model: level + first-order autoregression + noise. Its two unknowns, for how long a move holds and which share of the
spread it has, are not estimated but averaged over (a grid, weighted by how well each point explains the data): a point
estimate from ten seconds is nearly always too hopeful. See docs/measurement.md for the formulas and the sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# For how long a move holds (the autoregression's time constant), s, and which share of the variance it has.
HOLDS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
SHARES = (0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
# The last point of the grid: no move at all. Before anything was seen it is as likely as all the others together.
_HOLD = np.array([hold for hold in HOLDS_S for _ in SHARES] + [1.0])
_SHARE = np.array([share for _ in HOLDS_S for share in SHARES] + [0.0])
# More degrees of freedom than these make no difference worth the time.
MAX_DOF = 60
# Values that agree to this share are equal.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Motion:
    """What a series says about its mean and its moves.

    mean: the series' weighted mean. spread: standard error of it at each point of the grid; weight: how likely the
    point is (both [points]). dof: degrees of freedom. steady: how likely it is that the level does not move (0.5
    before anything was seen). hold_s: for how long a move holds, most likely. moving_sd: standard deviation of the
    moves, in the series' unit. pieces: how many independent values the series is worth.
    """

    mean: float
    spread: Floats
    weight: Floats
    dof: int
    steady: float
    hold_s: float
    moving_sd: float
    pieces: float

    @property
    def half_width(self) -> float:
        """Half-width of the 95 % interval of the mean: a mixture of Student's t, one for each point of the grid."""
        return _half_width(self.spread, self.weight, self.dof)


def motion(
    values: Floats, times_s: Floats, lengths_s: Floats, dof: int, steady_odds: float = 1.0, shortest_s: float = 0.0
) -> Motion:
    """Fit the model to values [n >= 2] at ascending times.

    lengths_s: the time that each value is a mean of; the noise's variance falls with it, and the mean is weighted by
    it. dof: of Student's t. steady_odds: how much more likely no move is than any, beforehand. shortest_s: moves that
    hold for less are noise at this resolution.
    """
    keep = np.greater_equal(_HOLD, shortest_s) | (_SHARE == 0)
    hold, share = _HOLD[keep], _SHARE[keep]
    weights = lengths_s / lengths_s.sum()
    mean = float((weights * values).sum())
    square, log_likelihood, variance, n = _filter(values - mean, times_s, lengths_s, hold, share)
    prior = np.zeros(len(hold))
    prior[-1] = log(steady_odds * (len(hold) - 1))
    # Equal values would have no logarithm.
    square = np.maximum(square, max(n * (_EQUAL * mean) ** 2, 1e-200))
    score = prior + log_likelihood - (n - 1) / 2 * np.log(square)
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    scale = square / (n - 1)
    moves = weight[:-1] / max(float(weight[:-1].sum()), 1e-300)
    return Motion(
        mean,
        np.sqrt(variance * scale),
        weight,
        max(1, min(dof, n - 1, MAX_DOF)),
        float(weight[-1]),
        float(np.exp((moves * np.log(hold[:-1])).sum())),
        sqrt(float((weight * share * scale).sum())),
        1 / float((weight * variance).sum()),
    )


def _filter(
    apart: Floats, times_s: Floats, lengths_s: Floats, hold: Floats, share: Floats
) -> tuple[Floats, Floats, Floats, int]:
    """Kalman filter for all points of the grid at once, the unknown level taken out by generalised least squares.

    (weighted sum of squares; log-likelihood without it; variance of the weighted mean in units of the variance of a
    value of mean length; how many values.) Harvey: Forecasting, Structural Time Series Models (1989), sections 3.2, 3.4.
    """
    n = len(apart)
    weights = lengths_s / lengths_s.sum()
    noise = np.multiply.outer(lengths_s.mean() / lengths_s, 1 - share) + _EQUAL
    # A later value tells nothing of an earlier one when the clock went back: the machine was started again in between.
    gaps = np.diff(times_s, prepend=times_s[0])
    gaps[gaps < 0] = np.inf
    fades = np.exp(-gaps[:, None] / hold)
    grown = (1 - fades**2) * share
    kept = fades**2
    # What the filter expects of a series of the deviations and of one of ones (for the level), and the weight of all
    # earlier values as seen through the autoregression (for the variance of the mean).
    expected = np.zeros((2, len(hold)))
    echo = np.zeros(len(hold))
    variance = share
    observed = np.stack([apart, np.ones(n)], axis=1)[:, :, None]
    off = np.empty((n, 2, len(hold)))
    total = np.empty((n, len(hold)))
    echoes = np.empty((n, len(hold)))
    for i in range(n):
        expected *= fades[i]
        echo *= fades[i]
        variance = kept[i] * variance + grown[i]
        np.add(variance, noise[i], out=total[i])
        gain = variance / total[i]
        np.subtract(observed[i], expected, out=off[i])
        expected += gain * off[i]
        variance = gain * noise[i]
        echoes[i] = echo
        echo += weights[i]
    squares, products, ones = ((off[:, a] * off[:, b] / total).sum(axis=0) for a, b in ((0, 0), (0, 1), (1, 1)))
    spread = (weights[:, None] ** 2 * (noise + share) + 2 * weights[:, None] * share * echoes).sum(axis=0)
    return squares - products * products / ones, -(np.log(total).sum(axis=0) + np.log(ones)) / 2, spread, n


def _half_width(spread: Floats, weight: Floats, dof: int) -> float:
    """The value that a mixture of Student's t exceeds, on either side, with a probability of 5 %."""
    seen = weight > 1e-6
    spread, weight = spread[seen], weight[seen]
    low, high = 0.0, 13 * float(spread.max())
    for _ in range(34):
        middle = (low + high) / 2
        if float((weight * both_tails(middle / spread, dof)).sum()) > 0.05:
            low = middle
        else:
            high = middle
    return high


def both_tails(t: Floats, dof: int) -> Floats:
    """P(|T| > t) for Student's t with a whole number of degrees of freedom. Abramowitz and Stegun 26.7.3, 26.7.4."""
    angle = np.arctan(t / sqrt(dof))
    square = np.cos(angle) ** 2
    term = np.cos(angle) if dof % 2 else np.ones_like(t)
    inside = term
    for j in range(3 if dof % 2 else 2, dof - 1, 2):
        term = term * square * (j - 1) / j
        inside = inside + term
    if dof == 1:
        inside = np.zeros_like(t)
    return np.asarray(1 - (2 / pi * (angle + np.sin(angle) * inside) if dof % 2 else np.sin(angle) * inside))
