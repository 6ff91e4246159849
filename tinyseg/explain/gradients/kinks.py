"""Slopes to both sides of a place, and whether they meet: what differences tell as their step shrinks."""

from typing import Any, NamedTuple

import numpy as np

LEVELS, SHRINK = 9, 4.0  # so many steps, each this much shorter than the one before
_QUICK = 2  # steps that do for most places
_SMOOTH = 0.7  # a gap that shrinks to less than this at every step closes in the end
_STEEPER = 1.5  # a gap that grows by more than this is that of a jump, or of an upright tangent
_SEEN = 50  # a second difference this many times its rounding error is there


class Slopes(NamedTuple):
    """What happens to outputs when one number moves. All arrays have one number for each output.

    Attributes
    ----------
    central : ndarray
        The derivative; where there is none, the mean of both sides' slopes.
    left, right : ndarray
        Slope of each side; both the derivative where there is one.
    kinked : ndarray of bool
        Where there is no derivative.
    rounding : ndarray
        What rounding may make of ``central``.
    unsure : ndarray
        By how much the last two steps disagree about it.
    kind : str
        ``"kink"``, where the slopes differ; ``"jump"``, where the function does, or ends; ``""`` where it is smooth.
    thorough : bool
        Whether all steps were tried.
    thoroughly : callable
        Returns the same after all of them.
    """

    central: np.ndarray
    left: np.ndarray
    right: np.ndarray
    kinked: np.ndarray
    rounding: np.ndarray
    unsure: np.ndarray
    kind: str
    thorough: bool
    thoroughly: Any


def slopes(moved_by, centre, at, step, noise, tolerance, levels=LEVELS, quick=True):
    """Return slopes of outputs.

    Parameters
    ----------
    moved_by : callable
        Returns the outputs, a vector, after the number was moved by a distance.
    centre : ndarray
        The outputs where it is.
    at : float
        The number.
    step : float
        The longest step.
    noise : ndarray
        The rounding error of each output.
    tolerance : float
        A quick answer does where two steps agree as well as this.
    levels : int
        How many steps.
    quick : bool
        Whether two steps do where they agree.

    Returns
    -------
    Slopes
    """

    def thoroughly():
        return slopes(moved_by, centre, at, step, noise, tolerance, levels, quick=False)

    steps, aheads, behinds = [], [], []
    for level in range(levels):
        h = (at + step * SHRINK**-level) - at  # what the addition really does
        steps.append(h)
        aheads.append(moved_by(h) - centre)
        behinds.append(centre - moved_by(-h))
        if quick and level == _QUICK - 1:
            found = _closed(np.array(steps), np.array(aheads), np.array(behinds), noise)
            if not found.kinked.any() and np.all(found.unsure <= tolerance + found.rounding):
                return found._replace(thoroughly=thoroughly)
    found = _closed(np.array(steps), np.array(aheads), np.array(behinds), noise)
    return found._replace(thorough=True, thoroughly=lambda: found)


def _closed(steps, ahead, behind, noise):
    """Return the slopes for differences, one row for each step."""
    h = steps[:, None]
    gap, central = np.abs(ahead - behind) / h, (ahead + behind) / (2 * h)
    gap[~np.isfinite(gap)] = np.inf
    seen = gap * h > _SEEN * noise
    opened = np.zeros(gap.shape, bool)
    opened[1:] = seen[1:] & ~(gap[1:] < _SMOOTH * gap[:-1])
    opened[0] = opened[1] if len(h) > 1 else seen[0]
    first = np.where(opened.any(axis=0), len(h) - np.argmax(opened[::-1], axis=0), 0)  # from here on the gap closes
    # a gap that rounding hid from some step on, while it should not have been hidden if it had stayed, did close; one
    # that was hardly seen before cannot be told, and counts as open
    last_seen = np.where(seen.any(axis=0), len(h) - 1 - np.argmax(seen[::-1], axis=0), -1)
    at_last = np.take_along_axis(gap * h, np.maximum(last_seen, 0)[None], axis=0)[0]
    hidden = (first == last_seen + 1) & (at_last <= SHRINK * 2 * _SEEN * noise) & opened.any(axis=0)
    # and one that only begins to close with the last step may be that of a corner not far beside
    never = first >= len(h) - (len(h) > _QUICK)
    kinked = never | (hidden & (np.count_nonzero(opened, axis=0) > 1))

    columns = np.arange(gap.shape[1])
    change = np.full(gap.shape, np.inf)
    change[1:] = np.abs(np.diff(central, axis=0))
    score = np.where(np.isfinite(central), change + noise / h, np.inf)
    score[np.arange(len(h))[:, None] <= np.minimum(first, len(h) - 2)] = np.inf  # the step before is not smooth
    best = np.argmin(score, axis=0)
    best[~np.isfinite(score).any(axis=0)] = len(h) - 1
    before = np.maximum(best - 1, 0)
    derivative = central[best, columns] + (central[best, columns] - central[before, columns]) / (SHRINK**2 - 1)
    rounding, unsure = noise / steps[best], np.abs(central[best, columns] - central[before, columns])
    left = right = derivative
    kind = ""
    if kinked.any() and len(h) > 2:
        ends, of_ends, beside, jumps = _of_sides(h, ahead, behind, gap, last_seen)
        left, right = (np.where(kinked, end, derivative) for end in ends)
        kind = "jump" if np.any(jumps & kinked) else "kink"
        derivative = np.where(kinked, left / 2 + right / 2, derivative)
        rounding = np.where(kinked, SHRINK * noise / beside, rounding)
        unsure = np.where(kinked, of_ends, unsure)
    unsure[~np.isfinite(unsure)] = np.inf
    return Slopes(derivative, left, right, kinked, rounding, unsure, kind, False, None)


def _of_sides(h, ahead, behind, gap, last_seen):
    """Return the slopes to the left and the right, how unsure they are, at which step, and where the function jumps.

    The curvature is taken off by the step before. Where the outputs jump, a slope comes from two steps to the same
    side, so that the value at the place does not matter.
    """
    columns = np.arange(gap.shape[1])
    level = np.clip(last_seen, 2, len(h) - 1)
    jumps = ~(gap[level, columns] < _STEEPER * gap[level - 1, columns])
    middle = np.minimum(level, max(len(h) // 2, 2))  # shorter steps see more of rounding than of curvature
    slopes_beside = []
    for difference in (behind, ahead):
        between, slope = np.diff(difference, axis=0) / np.diff(h, axis=0), difference / h
        near, far = (np.where(jumps, between[middle - 1 - i, columns], slope[middle - i, columns]) for i in (0, 1))
        slopes_beside.append((near, far))
    ends = []
    for near, far in slopes_beside:
        upright = jumps & (np.abs(near) > _STEEPER * np.abs(far)) & (np.sign(near) == np.sign(far))
        ends.append(np.where(upright, np.copysign(np.inf, near), near + (near - far) / (SHRINK - 1)))
    # where the function ends, the slope of the other side, or all from it on to an upright one
    left, right = (
        np.where(np.isnan(end), np.where(np.isinf(other), near, other), end)
        for end, other, (near, _) in zip(ends, ends[::-1], slopes_beside[::-1], strict=True)
    )
    changes = [np.where(np.isinf(end), 0, np.abs(n - f)) for end, (n, f) in zip(ends, slopes_beside, strict=True)]
    return (left, right), np.fmax(*changes), h[middle, 0], jumps
