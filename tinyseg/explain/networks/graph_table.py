"""A graph in plain text: numbers as people write them, and the table."""

from tinyseg.explain.networks.graph_blocks import BYTES_MOVED
from tinyseg.explain.text import ruled


def table(graph):
    """Return a graph as a table of its operators.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    str
    """
    kept = ("kept",) if graph.backward else ()
    header = ("", "layer", "operator", "from", "output", "parameters", "GFLOP", "MB moved", *kept)
    lines, total = [header], graph.totals()
    sizes = graph._sizes
    for number, node in enumerate(graph.nodes):
        sources = ", ".join(str(source) for source in dict.fromkeys(source for source, _ in node.inputs))
        moved = sum(getattr(node, name) for name in BYTES_MOVED)
        times = f" ({node.times} times)" if node.times > 1 else ""
        lines.append(
            (
                str(number), node.layer, node.operator + times, sources, size(node.output_shape),
                str(sum(sizes[name] for name in node.parameters) or ""),
                _giga(node.flops + node.backward_flops), f"{moved / 1e6:.2f}",
                *((f"{node.kept_bytes / 1e6:.2f}",) if kept else ()),
            )
        )  # fmt: skip
    moved = sum(total[name] for name in BYTES_MOVED)
    sums = ("", graph.name, f"{len(graph.nodes) - 1} operators", "", "", str(total["parameters"]),
            _giga(total["flops"] + total["backward_flops"]), f"{moved / 1e6:.2f}",
            *((f"{total['kept_bytes'] / 1e6:.2f}",) if kept else ()))  # fmt: skip
    lines.append(sums)
    notes = ["from: the operators whose output it takes. Parameters used twice are counted once in the sum."]
    if graph.backward:
        notes.append("GFLOP and MB are of both passes; kept: MB that the tape keeps for the backward pass.")
    if total["unused"]:
        more = f" and {len(total['unused']) - 5} more" if len(total["unused"]) > 5 else ""
        notes.append(f"No operator took {', '.join(total['unused'][:5])}{more}.")
    return "\n".join([*ruled(lines, range(1, 5), sums=True), "", *notes])


def size(shape):
    """Return a shape in words: ``"1x3x224x224"``."""
    return "x".join(map(str, shape)) or "a number"


def _giga(flops):
    return f"{flops / 1e9:.3f}" if flops else ""


def amount(number, units):
    """Return a number with the unit that makes it short.

    Parameters
    ----------
    number : int
    units : sequence of str
        For ones, thousands, millions, ...

    Returns
    -------
    str
        ``"1.2 MB"``.
    """
    value, power = float(number), 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{units[power]}"
