"""The picture of a receptive field: a frame for what is seen, colours for how much it counts."""

import numpy as np

from tinyseg.backend import moved
from tinyseg.colours import HEX
from tinyseg.tensor import array_of

_FRAME, _CELL = HEX["vermilion"], HEX["sky blue"]


def draw_field(field, picture, counts, width):
    """Draw a receptive field twice: on the whole picture, and near.

    Parameters
    ----------
    field : ReceptiveField
    picture : ndarray or Tensor or None
    counts : float
        Share of the largest gradient from which on a pixel counts.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    height, wide = field.picture_shape[1:]
    grey = _grey(picture, (height, wide))
    panel = width / 2 - 0.6
    figure = Figure(figsize=(width, min(max(panel * height / wide, 2.2), 6.5) + 1.5), dpi=100, layout="constrained")
    figure.suptitle(
        f"Receptive field of {field.layer}, row {field.at[0]}, column {field.at[1]}: "
        f"{field.size[0]} x {field.size[1]} pixels",
        fontsize=11, weight="bold", x=0.01, ha="left",
    )  # fmt: skip
    axes = figure.subplots(1, 2)
    shown = None
    for one, near in zip(axes, (False, True), strict=True):
        shown = _draw(one, field, grey, counts, near) or shown
        one.set_xlabel("column (pixels)", fontsize=8)
        one.set_ylabel("row (pixels)", fontsize=8)
        one.tick_params(labelsize=7)
    axes[0].set_title("on the picture", fontsize=9)
    axes[1].set_title("enlarged", fontsize=9)
    if shown is not None:
        bar = figure.colorbar(shown, ax=axes, location="right", fraction=0.03, pad=0.02)
        bar.set_label("mean size of the gradient, of the largest", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    handles = _handles(field, shown is not None)
    figure.legend(handles=handles, loc="outside lower left", ncols=3 if width > 9 else 1, fontsize=8, frameon=False)
    return figure


def _grey(picture, size):
    """Return a picture as grey values from 0 to 1, or None."""
    if picture is None:
        return None
    array = moved(array_of(picture), "cpu").astype(np.float64)
    if array.ndim not in (2, 3) or array.shape[-2:] != tuple(size):
        pixels = f"{size[0]} x {size[1]} pixels"
        raise ValueError(f"picture has shape {array.shape}; expected (H, W) or (C, H, W) of {pixels}")
    array = array.mean(axis=0) if array.ndim == 3 else array
    return (array - array.min()) / max(np.ptp(array), np.finfo(float).tiny)


def _draw(axes, field, grey, counts, near):
    """Draw the field; return the image of the gradients, None without."""
    from matplotlib.patches import Rectangle

    (x1, y1, x2, y2), (_, height, width) = field.box, field.picture_shape
    axes.imshow(np.full((height, width), 0.93) if grey is None else 0.35 + 0.6 * grey, cmap="gray", vmin=0, vmax=1)
    shown, largest = None, field.effective.max(initial=0)
    if largest > 0:
        share = field.effective / largest
        shown = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, alpha=(share >= counts / 10) * 0.95,
                            interpolation="nearest")  # fmt: skip
        if (share < counts).any() and min(share.shape) > 1:
            axes.contour(share, levels=[counts], colors="white", linewidths=1)
    down, across = field.stride
    place = field.at[1] * across - 0.5, field.at[0] * down - 0.5
    axes.add_patch(Rectangle(place, across, down, fill=False, edgecolor=_CELL, linewidth=1.5))
    axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=_FRAME, linewidth=2))
    if near:
        edge = 0.06 * max(x2 - x1, y2 - y1) + 0.5
        axes.set_xlim(x1 - 0.5 - edge, x2 - 0.5 + edge)
        axes.set_ylim(y2 - 0.5 + edge, y1 - 0.5 - edge)
    return shown


def _handles(field, effective):
    """Return what the legend shows."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    handles: list = [
        Patch(fill=False, edgecolor=_FRAME, linewidth=2, label="theoretical: every pixel that the cell depends on"),
        Patch(fill=False, edgecolor=_CELL, linewidth=1.5, label="the cell"),
    ]
    if effective:
        label = f"effective: 4.55% of the largest gradient (as a square: {field.effective_size:.1f} pixels)"
        dark = [withStroke(linewidth=5, foreground="#00224e")]  # as what it lies on
        handles.append(Line2D([], [], color="white", linewidth=1, label=label, path_effects=dark))
    return handles
