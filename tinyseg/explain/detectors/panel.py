"""Where the pictures of a detector's stages are drawn: a figure of their own, or one place of many on a sheet."""

import textwrap

import numpy as np

from tinyseg.colours import OKABE_ITO

COLOURS = {name: (r / 255, g / 255, b / 255) for name, (r, g, b) in OKABE_ITO.items()}
#: Of maps and classes, in turn; neighbours differ in brightness too.
IN_TURN = [COLOURS[name] for name in ("blue", "orange", "bluish green", "reddish purple", "sky blue", "vermilion")]
COVERS, OTHER, REMOVED, TRUTH = COLOURS["bluish green"], "#5f6a76", COLOURS["vermilion"], "black"
MOST_BOXES = 150
WIDTH, HEIGHT, PLACE = 9.6, 6.9, (2.75, 2.5)  # inches, of a figure of its own and of a place on a sheet
_INK, _SOFT = "#1c2430", "#55606e"


class Panel:
    """A figure, or a place on a sheet, with a stage's title.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or SubFigure
        Where to draw.
    title, text : str
        What stands above; the text is left out in a place on a sheet.
    small : bool
        Whether it is a place on a sheet.
    """

    def __init__(self, figure, title, text, small):
        self.figure, self.small = figure, small
        self.width, self.height = PLACE if small else (WIDTH, HEIGHT)
        left = 0.04 if small else 0.25 / WIDTH
        figure.text(left, 1 - (0.07 if small else 0.15) / self.height, title, fontsize=8.6 if small else 13,
                    weight="bold", color=_INK, va="top")  # fmt: skip
        self.top, self.bottom = (0.28, 0.05) if small else (0.5, 0.68)  # inches taken above and below
        if not small:
            lines = textwrap.wrap(text, 112)
            figure.text(left, 1 - self.top / HEIGHT, "\n".join(lines), fontsize=9.5, color=_SOFT, va="top")
            self.top += 0.2 * len(lines) + 0.1

    def grid(self, rows=1, columns=1, *, captions=0, numbers=True, bars=False, left=0.6, right=0.25, **ratios):
        """Return axes in rows and columns.

        Parameters
        ----------
        rows, columns : int
            How many.
        captions : int
            Lines of words above each.
        numbers : bool
            Whether axes have numbers, and a word for them below.
        bars : bool
            Whether each has a bar of colours at its right.
        left, right : float
            Inches for what stands at the sides.
        **ratios
            ``width_ratios``, ``height_ratios``.

        Returns
        -------
        ndarray of matplotlib.axes.Axes, shape (rows, columns)
        """
        words, numbered = (0.13 if self.small else 0.17) * captions, 0.0 if self.small or not numbers else 0.38
        left, right = (0.08, 0.08) if self.small else (left, 0.65 if bars else right)
        between = 0.05 if self.small else (0.5 if numbers else 0.1) + 0.3 * bars, words + numbered + 0.06
        wide = (self.width - left - right - (columns - 1) * between[0]) / columns
        high = (self.height - self.top - self.bottom - words - numbered - (rows - 1) * between[1]) / rows
        grid = self.figure.add_gridspec(
            rows, columns, left=left / self.width, right=1 - right / self.width,
            bottom=(self.bottom + numbered) / self.height, top=1 - (self.top + words) / self.height,
            wspace=between[0] / wide, hspace=between[1] / high, **ratios,
        )  # fmt: skip
        return np.array([[self.figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)])

    def legend(self, entries):
        """Write below what colours and lines mean; not on a sheet, which has a legend of its own.

        Parameters
        ----------
        entries : list of (str, dict)
            Words, and the look of a line.
        """
        if self.small or not entries:
            return
        from matplotlib.lines import Line2D

        x, y = 0.25, 0.48  # inches
        for words, look in entries:
            line = look.get("color") != "none"
            length = 0.072 * len(words) + 0.22 + 0.42 * line
            if x > 0.25 and x + length > WIDTH:
                x, y = 0.25, y - 0.19
            if line:
                ends = [x / WIDTH, (x + 0.35) / WIDTH], [y / HEIGHT] * 2
                self.figure.add_artist(Line2D(*ends, **{"linewidth": 2.2, **look}))
            self.figure.text((x + 0.42 * line) / WIDTH, y / HEIGHT, words, fontsize=8.5, va="center_baseline")
            x += length

    def nothing(self, words):
        """Say that there is nothing to draw."""
        (axes,) = self.grid().ravel()
        axes.axis("off")
        axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=8 if self.small else 12, color=_SOFT)


def show(panel, axes, image, extent=None, unit="pixels", **look):
    """Show an image, with numbers at the axes in a figure of its own; return what matplotlib made of it."""
    from matplotlib.ticker import MaxNLocator

    height, width = image.shape[:2]
    extent = (0, width, height, 0) if extent is None else extent
    if image.ndim == 3 and image.dtype == np.uint8:
        image = _smaller(image, 500 if panel.small else 1300)
    drawn = axes.imshow(image, extent=extent, interpolation="nearest", **look)
    axes.spines[:].set_color("#999999")
    axes.spines[:].set_linewidth(0.6)
    if panel.small or not unit:
        axes.set(xticks=[], yticks=[])
    else:
        axes.tick_params(labelsize=8, colors=_SOFT)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.set_xlabel(f"x ({unit})", fontsize=8.5, color=_SOFT, labelpad=2)
        axes.set_ylabel(f"y ({unit})", fontsize=8.5, color=_SOFT, labelpad=2)
    return drawn


def _smaller(image, most):
    """Return a picture of not many more pixels along a side than there is room for, to draw it faster."""
    from PIL import Image

    factor = max(image.shape[:2]) // most
    return np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image


def outline(axes, boxes, **look):
    """Draw the outlines of boxes ``(K, 4)``, the first on top."""
    from matplotlib.collections import LineCollection

    if not len(boxes):
        return
    corners = np.asarray(boxes, np.float64)[::-1][:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)
    for name in ("color", "edgecolors"):
        if isinstance(look.get(name), np.ndarray):
            look[name] = look[name][::-1]
    axes.add_collection(LineCollection(list(corners), **{"linewidths": 1.2, "capstyle": "projecting", **look}))


def outline_truth(axes, truth, key="resized", factor=(1.0, 1.0)):
    """Draw the true boxes: dashed black on white, so that they show on everything."""
    if truth is None:
        return []
    boxes = truth[key] * np.array([*factor, *factor])
    outline(axes, boxes, color="white", linewidths=2.6, alpha=0.8, zorder=3)
    outline(axes, boxes, color=TRUTH, linewidths=1.3, linestyles=(0, (4, 2.5)), zorder=3.1)
    return [("true object", {"color": TRUTH, "linestyle": (0, (3, 1.8)), "linewidth": 1.4})]


def pale(image):
    """Return a picture in pale grey, for boxes to show on."""
    grey = image.mean(axis=2, dtype=np.float32, keepdims=True)
    return np.repeat((115 + 0.55 * grey).astype(np.uint8), 3, axis=2)
