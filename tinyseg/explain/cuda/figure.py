"""The picture of one instruction of a warp: its threads above, the memory that they touch below."""

import numpy as np

from tinyseg.colours import OKABE_ITO
from tinyseg.explain.cuda.analysis import BANKS, LINE, SECTOR, WORD
from tinyseg.explain.cuda.threads import WARP

_ASKED, _FETCHED, _CONFLICT = (
    tuple(part / 255 for part in OKABE_ITO[name]) for name in ("blue", "sky blue", "vermilion")
)
_NARROWEST = 0.06  # of an element, in threads: about two points of the screen


def draw_instruction(lanes, byte, itemsize, space, title):
    """Draw which thread of a warp touches what.

    Parameters
    ----------
    lanes : ndarray of int
        Threads of the warp that take part.
    byte : ndarray of int
        Where each one's element begins.
    itemsize : int
        Bytes of an element.
    space : {"global", "shared"}
        In global memory the lines of 128 bytes that are touched are drawn, in shared memory the banks.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(9.6, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.6, WARP - 0.4), ylim=(-0.65, 1.35))
    axes.set_axis_off()
    (_draw_global if space == "global" else _draw_shared)(axes, lanes, byte, itemsize, title)
    for lane in range(WARP):
        active = lane in lanes
        axes.text(
            lane, 1.12, str(lane), ha="center", va="center", fontsize=7, color="white" if active else "#999999",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": _ASKED if active else "#eeeeee", "edgecolor": "none"},
        )  # fmt: skip
    axes.text(-0.5, 1.26, "threads", fontsize=8, color="#555555")
    return figure


def _draw_global(axes, lanes, byte, itemsize, title):
    """Draw the lines of 128 bytes one beside the other, their sectors, and in them the elements asked for."""
    ends = np.concatenate([byte, byte + itemsize - 1])
    sectors, lines = set((ends // SECTOR).tolist()), np.unique(ends // LINE)
    width, gap = WARP / len(lines), 0.12 * WARP / len(lines) if len(lines) > 1 else 0
    scale = (width - gap) / LINE
    left = {int(line): -0.5 + i * width + gap / 2 for i, line in enumerate(lines)}
    for line, x in left.items():
        for sector in range(line * (LINE // SECTOR), (line + 1) * (LINE // SECTOR)):
            place = x + (sector * SECTOR - line * LINE) * scale
            colour = _FETCHED if sector in sectors else "white"
            _box(axes, place, SECTOR * scale, colour)
        if len(lines) <= 8 or line == lines[0] or line == lines[-1]:
            axes.text(x, -0.12, f"byte {line * LINE}", fontsize=7, color="#555555", va="top", rotation=0)
    for lane, start in zip(lanes.tolist(), byte.tolist(), strict=True):
        place = left[start // LINE] + (start % LINE) * scale
        edge = 0.4 if itemsize * scale > 0.25 else 0  # a white edge would hide a narrow element
        shown = max(itemsize * scale, _NARROWEST)
        axes.add_patch(_rectangle(place, shown, _ASKED, edgecolor="white", linewidth=edge, zorder=2))
        axes.plot([lane, place + itemsize * scale / 2], [1.03, 0.3], color=_ASKED, linewidth=0.7)
    elements, holes = len(np.unique(byte)), len(np.unique(lanes * itemsize // SECTOR))
    least = min(len(sectors), max(-(-elements * itemsize // SECTOR), min(holes, elements)))
    text = f"{len(sectors)} sectors of 32 bytes are fetched (light); {least} would do for neighbours (asked for: dark)"
    axes.text(-0.5, -0.45, text, fontsize=9)
    axes.set_title(title, fontsize=9, loc="left", family="monospace")


def _draw_shared(axes, lanes, byte, itemsize, title):
    """Draw the 32 banks, and how many different words each of them has to give."""
    banks, words = (byte // WORD) % BANKS, byte // WORD
    # a pass serves 128 bytes, so the threads of half a warp for types of 8 bytes
    phase = lanes // (WARP // min(max(1, itemsize // WORD), WARP))
    ways = np.zeros((BANKS, int(phase.max()) + 1), int)
    for bank, part, _ in {*zip(banks.tolist(), phase.tolist(), words.tolist(), strict=True)}:
        ways[bank, part] += 1
    for bank in range(BANKS):
        worst = ways[bank].max()
        _box(axes, bank - 0.5, 1, "white" if worst == 0 else _FETCHED if worst == 1 else _CONFLICT)
        axes.text(bank, 0.14, str(worst) if worst else "", ha="center", va="center", fontsize=8)
        axes.text(bank, -0.06, str(bank), ha="center", va="top", fontsize=7, color="#555555")
    for lane, bank, part in zip(lanes.tolist(), banks.tolist(), phase.tolist(), strict=True):
        colour = _CONFLICT if ways[bank, part] > 1 else _ASKED
        axes.plot([lane, bank], [1.03, 0.3], color=colour, linewidth=0.7)
    passes = int(ways.max(axis=0).sum())
    least = len(np.unique(phase))
    axes.text(-0.5, -0.28, "banks; in the boxes: different words asked of each at once", fontsize=7, color="#555555")
    axes.text(-0.5, -0.5, f"{passes} passes through the banks; without conflicts it would be {least}", fontsize=9)
    axes.set_title(title, fontsize=9, loc="left", family="monospace")


def _box(axes, left, width, colour):
    axes.add_patch(_rectangle(left, width, colour, edgecolor="#888888", linewidth=0.5))


def _rectangle(left, width, colour, **look):
    from matplotlib.patches import Rectangle

    return Rectangle((left, 0), width, 0.28, facecolor=colour, **look)
