"""A graph drawn: as a figure, and as SVG with text that can be selected."""

import math
from typing import NamedTuple
from xml.sax.saxutils import escape

from tinyseg.colours import OKABE_ITO
from tinyseg.explain.networks.graph_layout import layered
from tinyseg.explain.networks.graph_table import amount, size

_LINE, _PADDING = 0.155, 0.08  # inches: height of a line of text, and around it
_LETTER = 0.072  # inches of a letter of 8.5 points
_MARGIN, _TITLE = 0.25, 0.75
_PIXELS = 96  # of an inch in SVG


class _Kind(NamedTuple):
    """How boxes of one kind look."""

    colour: str
    words: str


def _light(name):
    """Return a light shade of one of the colours."""
    return "#" + "".join(f"{round(255 - (255 - part) * 0.38):02x}" for part in OKABE_ITO[name])


_KINDS = {
    "input": _Kind("#ffffff", "input"),
    "convolution": _Kind(_light("sky blue"), "convolution or linear layer"),
    "normalisation": _Kind(_light("orange"), "normalisation or activation"),
    "pooling": _Kind(_light("bluish green"), "pooling, resizing, joining"),
    "loss": _Kind(_light("vermilion"), "loss"),
    "block": _Kind(_light("yellow"), "several operators"),
    "host": _Kind("#e8e8e8", "no gradient flows (dashed: comes after)"),
    "other": _Kind("#f6f6f6", "other operators"),
}
_WORDS = {
    "convolution": ("conv", "linear", "matmul"),
    "normalisation": ("norm", "relu", "sigmoid", "softmax"),
    "pooling": ("pool", "roi", "interpolate", "upsample", "concat", "cat", "multi_scale", "pad"),
    "loss": ("loss", "entropy", "smooth_l1", "dice", "focal"),
}


def _kind(block):
    """Return which kind a block is of."""
    if block.kind == "input":
        return "input"
    if not block.differentiable:
        return "host"
    if len(block.nodes) > 1:
        return "block"
    word = block.kind.split(" + ")[0]
    order = ("loss", "convolution", "normalisation", "pooling")
    return next((kind for kind in order if any(part in word for part in _WORDS[kind])), "other")


def _lines(block):
    """Return what stands in a block."""
    title = block.name or block.kind
    second = block.kind if block.name else ""
    if block.repeats > 1:
        second = f"{block.repeats} x {second}"
    elif len(block.nodes) > 1:
        second = f"{second} ({len(block.nodes)} operators)"
    costs = []
    if block.parameters:
        costs.append(f"{amount(block.parameters, ('', 'k', 'M', 'G'))} parameters")
    if block.flops:
        costs.append(amount(block.flops, (" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP")))
    if block.bytes_moved:
        costs.append(amount(block.bytes_moved, (" B", " kB", " MB", " GB")) + " moved")
    if block.kept_bytes:
        costs.append(amount(block.kept_bytes, (" B", " kB", " MB", " GB")) + " kept")
    halves = [", ".join(costs[:2]), ", ".join(costs[2:])]
    return [title, *filter(None, [second, *halves])]


class _Drawing(NamedTuple):
    """A graph ready to be drawn, in inches from the upper left corner."""

    width: float
    height: float
    title: str
    subtitle: str
    boxes: list  # (block, lines, x, y, width, height)
    edges: list  # (points, label, whether a gradient flows)
    kinds: list


def _prepared(graph, depth):
    """Return where everything stands."""
    blocks = graph.blocks(depth)
    texts = [_lines(block) for block in blocks]
    widths = [max(len(line) for line in lines) * _LETTER + 2 * _PADDING + 0.1 for lines in texts]
    heights = [len(lines) * _LINE + 2 * _PADDING for lines in texts]
    joined: dict = {}
    for i, block in enumerate(blocks):
        for source, shape in block.inputs:
            joined.setdefault((source, i), []).append(size(shape))
        if i and not block.inputs:  # what it works on comes from no operator: it stands after what ran before it
            joined[i - 1, i] = []
    layout = layered(widths, heights, list(joined), gap=(0.35, 0.5), lane=0.75)
    total = graph.totals()
    costs = [
        f"{amount(total['parameters'], ('', ' thousand', ' million', ' billion'))} parameters",
        amount(total["flops"] + total["backward_flops"], (" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP")),
    ]
    if graph.backward:
        costs.append(amount(total["kept_bytes"], (" B", " kB", " MB", " GB")) + " kept for the backward pass")
    subtitle = f"{len(graph.nodes) - 1} operators in {len(blocks)} boxes; " + ", ".join(costs)
    title = f"{graph.name}: {'a step of training' if graph.backward else 'a prediction'}"
    least = max(len(subtitle) * 0.075, 6.6)
    width = max(layout.size[0], least) + 2 * _MARGIN
    left = (width - layout.size[0]) / 2
    kinds = [kind for kind in _KINDS if kind in {_kind(block) for block in blocks}]
    boxes = [
        (block, lines, x + left - w / 2, y + _TITLE - h / 2, w, h)
        for block, lines, (x, y), w, h in zip(blocks, texts, layout.centres, widths, heights, strict=True)
    ]
    edges = [
        ([(x + left, y + _TITLE) for x, y in route], _label(shapes), blocks[i].differentiable and bool(shapes))
        for ((_, i), shapes), route in zip(joined.items(), layout.routes, strict=True)
    ]
    height = layout.size[1] + _TITLE + 0.3 + 0.2 * math.ceil(len(kinds) / 2)
    return _Drawing(width, height, title, subtitle, boxes, edges, kinds)


def _label(shapes):
    """Return what stands on an edge."""
    different = list(dict.fromkeys(shapes))
    return f"{len(shapes)} arrays" if len(different) > 1 else different[0] if different else ""


def _label_place(points):
    """Return where the shape stands on an edge: on its last piece, where edges to the same box are still apart."""
    (x1, y1), (x2, y2) = points[-2:]
    share = 0.6 if len(points) == 2 else 0.25
    return x1 + (x2 - x1) * share, y1 + (y2 - y1) * share


def _legend(drawing):
    """Return place and kind of each entry of the legend: in rows of two."""
    top = drawing.height - 0.2 * math.ceil(len(drawing.kinds) / 2) - 0.02
    return [(_MARGIN + (i % 2) * 3.0, top + (i // 2) * 0.2, kind) for i, kind in enumerate(drawing.kinds)]


def _hint(graph, block):
    """Return what shows under the pointer: the operators of a block."""
    shown = [graph.nodes[number] for number in block.nodes[:30]]
    lines = [f"{node.layer or '-'}: {node.operator} -> {size(node.output_shape)}" for node in shown]
    return "\n".join([*lines, *([f"... and {len(block.nodes) - 30} more"] if len(block.nodes) > 30 else [])])


def draw_svg(graph, depth):
    """Return a graph as the text of an SVG file.

    Parameters
    ----------
    graph : Graph
    depth : int or None

    Returns
    -------
    str
    """
    drawing = _prepared(graph, depth)

    def at(*values):
        return [f"{value * _PIXELS:.1f}" for value in values]

    def text(x, y, words, how):
        x, y = at(x, y)
        return f'<text x="{x}" y="{y}" {how}>{escape(words)}</text>'

    width, height = at(drawing.width, drawing.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="10.5" role="img">',
        f"<title>{escape(drawing.title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0.5 L8,4 L0,7.5 z" fill="#555555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(_MARGIN, 0.3, drawing.title, 'font-size="14" font-weight="bold"'),
        text(_MARGIN, 0.52, drawing.subtitle, 'fill="#444444"'),
    ]
    for points, _, flows in drawing.edges:
        path = "M" + " L".join(",".join(at(*point)) for point in points)
        dashes = "" if flows else ' stroke-dasharray="4 3"'
        parts.append(f'<path d="{path}" fill="none" stroke="#555555"{dashes} marker-end="url(#tip)"/>')
    for points, label, _ in drawing.edges:
        x, y = _label_place(points)
        halo = 'paint-order="stroke" stroke="#ffffff" stroke-width="3" fill="#444444" font-size="9"'
        if label:
            parts.append(text(x, y + 0.03, label, f'text-anchor="middle" {halo}'))
    for block, lines, x, y, w, h in drawing.boxes:
        left, top, wide, high = at(x, y, w, h)
        parts.append(
            f'<g><title>{escape(_hint(graph, block))}</title><rect x="{left}" y="{top}" width="{wide}" height="{high}" '
            f'rx="4" fill="{_KINDS[_kind(block)].colour}" stroke="#555555"/>'
        )
        for i, line in enumerate(lines):
            weight = ' font-weight="bold"' if i == 0 else ""
            parts.append(text(x + w / 2, y + _PADDING + (i + 0.75) * _LINE, line, f'text-anchor="middle"{weight}'))
        parts.append("</g>")
    for x, y, kind in _legend(drawing):
        left, top, wide, high = at(x, y, 0.18, 0.12)
        colour, words = _KINDS[kind]
        parts.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="{colour}" stroke="#555555"/>')
        parts.append(text(x + 0.26, y + 0.11, words, 'fill="#444444"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


def draw_figure(graph, depth, width):
    """Return a graph as a figure.

    Parameters
    ----------
    graph : Graph
    depth : int or None
    width : float or None
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
    from matplotlib.path import Path

    drawing = _prepared(graph, depth)
    scale = 1.0 if width is None else width / drawing.width
    figure = Figure(figsize=(drawing.width * scale, drawing.height * scale), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, drawing.width), ylim=(drawing.height, 0))
    axes.set_axis_off()

    def text(x, y, words, points, **look):
        axes.text(x, y, words, fontsize=points * scale, **look)

    text(_MARGIN, 0.3, drawing.title, 11, weight="bold")
    text(_MARGIN, 0.52, drawing.subtitle, 8.5, color="#444444")
    for points, _, flows in drawing.edges:
        axes.add_patch(
            FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=7 * scale, color="#555555",
                            linewidth=0.8 * scale, linestyle="-" if flows else (0, (4, 3)), shrinkA=0, shrinkB=0)
        )  # fmt: skip
    for points, label, _ in drawing.edges:
        x, y = _label_place(points)
        if label:
            text(x, y, label, 6.8, ha="center", va="center", color="#444444",
                 bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5 * scale})  # fmt: skip
    for block, lines, x, y, w, h in drawing.boxes:
        axes.add_patch(
            FancyBboxPatch((x + 0.04, y + 0.04), w - 0.08, h - 0.08, boxstyle="round,pad=0.04,rounding_size=0.05",
                           facecolor=_KINDS[_kind(block)].colour, edgecolor="#555555", linewidth=0.8 * scale)
        )  # fmt: skip
        for i, line in enumerate(lines):
            text(x + w / 2, y + _PADDING + (i + 0.5) * _LINE, line, 7.8, ha="center", va="center",
                 weight="bold" if i == 0 else "normal")  # fmt: skip
    for x, y, kind in _legend(drawing):
        colour, words = _KINDS[kind]
        axes.add_patch(Rectangle((x, y), 0.18, 0.12, facecolor=colour, edgecolor="#555555", linewidth=0.8 * scale))
        text(x + 0.26, y + 0.06, words, 8, va="center", color="#444444")
    return figure
