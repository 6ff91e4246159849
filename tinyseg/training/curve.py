"""The curve picture of a run: loss by step, and the validation scores by step."""

import io
import itertools

import numpy as np

from tinyseg.training.detection import BOX_SCORES, MASK_SCORES
from tinyseg.training.segmentation import SCORES

#: Colours of the losses that add up to the whole.
_PART_COLOURS = ("#b5651d", "#1a7f4b", "#a83232", "#7a4fa3", "#5b6770")


def smoothed(values, width):
    """Return the mean of each value and up to ``width - 1`` before it.

    Parameters
    ----------
    values : sequence of float, shape (T,)
        One per step.
    width : int
        Number of values averaged.

    Returns
    -------
    ndarray of float64, shape (T,)
    """
    values = np.asarray(values, np.float64)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_curve(losses, rows, parts=None):
    """Draw the curves of a run.

    Parameters
    ----------
    losses : sequence of float
        Loss of each step.
    rows : list of dict
        One per validation: ``step``, and the scores by name, None without validation pictures.
    parts : dict of list of float, optional
        Losses of each step by what they are called, which add up to ``losses``; drawn as means only.

    Returns
    -------
    bytes
        A PNG file, 960 pixels wide.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    scores = [score for score in (*SCORES, *MASK_SCORES, *BOX_SCORES) if rows and score.name in rows[0]]
    scored = [row for row in rows if scores and None not in (row[score.name] for score in scores)]
    figure = Figure(figsize=(9.6, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    steps = np.arange(1, len(losses) + 1)
    axes[0].plot(steps, losses, color="#c8d3e0", linewidth=0.8, label="each step")
    width = max(1, len(losses) // 30)
    axes[0].plot(steps, smoothed(losses, width), color="#1f5fa8", linewidth=1.8, label=f"mean of {width}")
    for (label, values), colour in zip((parts or {}).items(), itertools.cycle(_PART_COLOURS), strict=False):
        axes[0].plot(steps, smoothed(values, width), color=colour, linewidth=1.0, label=label)
    axes[0].set(title="training loss", xlabel="step", ylim=(0, None))
    axes[0].legend(frameon=False)
    if scored:
        at = [row["step"] for row in scored]
        for score in scores:
            look = {"color": score.colour, "linestyle": score.style, "marker": "o", "markersize": 3}
            axes[1].plot(at, [row[score.name] for row in scored], label=score.label, **look)
        axes[1].set(title="validation", xlabel="step", ylim=(0, 1))
        axes[1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
