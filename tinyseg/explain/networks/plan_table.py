"""What `plan` found, as rows, as a table to print and as JSON."""

from html import escape
from typing import NamedTuple

from tinyseg.explain.text import ruled, strict_json

_HEADER = (
    "layer", "operator", "input", "output", "algorithm", "GFLOP", "MB read", "written", "arithm.", "memory", "bound",
    "measured",
)  # fmt: skip
_TO_THE_LEFT = (*range(5), _HEADER.index("bound"))  # columns of words; numbers stand to the right

_NOTES = """\
Times in ms, measured: the least of a few runs. arithm.: the multiplications and additions of the textbook's formula at
this machine's best rate, counted for convolutions and linear layers; memory: the bytes of all arrays at the rate of a
copy; bound: the larger of the two. Winograd's method needs fewer operations than the textbook, RoI operators read only
where there are boxes, and what is still in the cache need not cross memory: such rows may beat their bound."""


class PlanRow(NamedTuple):
    """One call of a kernel.

    Attributes
    ----------
    layer : str
        Name of the layer whose parameters it was given, ``"layer1_conv.conv1"``; the operator's name where it has none.
    operator : str
        ``"conv2d"``, ``"max_pool2d"``, ...
    backward : bool
        Whether it is a call of the backward pass.
    folded : tuple of str
        What it does besides in the same pass: ``"concat"`` (it reads two inputs as if they were joined), ``"norm"``,
        ``"residual"``, ``"relu"``, in this order.
    input_shape, output_shape : tuple of int
        Of the first array that it was given, and that it returned.
    algorithm : dict of str to str
        For convolutions, which algorithm computed each result: ``{"y": "winograd"}``.
    flops : int or None
        Multiplications and additions of the textbook; None where they are not counted.
    bytes_read, bytes_written : int
        Of all arrays, each once.
    arithmetic_seconds, memory_seconds : float
        The least time for these operations, and for these bytes.
    seconds : float
        The measured time, the least of a few runs.
    """

    layer: str
    operator: str
    backward: bool
    folded: tuple
    input_shape: tuple
    output_shape: tuple
    algorithm: dict
    flops: int | None
    bytes_read: int
    bytes_written: int
    arithmetic_seconds: float
    memory_seconds: float
    seconds: float

    @property
    def least_seconds(self):
        """The larger of the two least times: no kernel of the textbook's formula takes less."""
        return max(self.arithmetic_seconds, self.memory_seconds)

    @property
    def bound(self):
        """Which of the two it is: ``"arithmetic"`` or ``"memory"``."""
        return "arithmetic" if self.arithmetic_seconds > self.memory_seconds else "memory"

    def words(self):
        """Return operator, what is folded in, and the direction: ``"batch_norm + relu backward"``."""
        return " + ".join((self.operator, *self.folded)) + " backward" * self.backward


class Plan:
    """What a network runs, call by call. ``print`` shows it as a table, and so does a notebook.

    Parameters
    ----------
    rows : list of PlanRow
        The calls, in order.
    seconds : float
        The time of the whole run: that of all rows, and the least of a few runs for all that is no kernel.
    peaks : dict of str to float
        ``flops`` and ``bytes`` per second that this machine can do.
    threads : int
        How many threads computed.
    """

    def __init__(self, rows, seconds, peaks, threads):
        self.rows, self.seconds, self.peaks, self.threads = rows, seconds, peaks, threads

    def totals(self):
        """Return sums over all rows.

        Returns
        -------
        dict
            ``flops``, ``bytes_read``, ``bytes_written``, ``arithmetic_seconds``, ``memory_seconds``, ``least_seconds``
            (the larger of the two of each row) and ``seconds`` in kernels.
        """
        names = ("flops", "bytes_read", "bytes_written", "arithmetic_seconds", "memory_seconds", "least_seconds")
        return {name: sum(getattr(row, name) or 0 for row in self.rows) for name in (*names, "seconds")}

    def figure(self):
        """Draw how fast the calls ran under the limits of the machine: see `tinyseg.explain.roofline`.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("plan.png")`` writes it; a notebook shows it.

        Raises
        ------
        ValueError
            If no call is of a convolution or linear layer, whose operations are counted.
        """
        from tinyseg.explain.networks.roofline import roofline

        return roofline(self)

    def to_json(self):
        """Return everything as the text of a JSON object, in seconds and bytes.

        Returns
        -------
        str
        """
        rows = [{**row._asdict(), "least_seconds": row.least_seconds, "bound": row.bound} for row in self.rows]
        whole = {"seconds": self.seconds, "threads": self.threads, "peaks": self.peaks, "totals": self.totals()}
        return strict_json({**whole, "rows": rows})

    def __str__(self):
        lines = [_HEADER, *(_cells(row) for row in self.rows), self._total_cells()]
        return "\n".join([*ruled(lines, _TO_THE_LEFT, sums=True), *self._last_lines(), "", _NOTES])

    __repr__ = __str__

    def _repr_html_(self):
        """Return the table for a notebook, where lines of text would be broken."""
        total = self._total_cells()
        lines = [_line("th", _HEADER), *(_line("td", _cells(row)) for row in self.rows), _line("th", total)]
        words = "".join(f"<p>{escape(text)}</p>" for text in (*self._last_lines(), _NOTES))
        return f'<div style="overflow-x: auto"><table>{"".join(lines)}</table></div>{words}'

    def _total_cells(self):
        """Return the line of sums."""
        total = self.totals()
        sums = _numbers(
            *(total[name] for name in ("flops", "bytes_read", "bytes_written", "arithmetic_seconds", "memory_seconds"))
        )
        return ("all kernels", f"{len(self.rows)} calls", "", "", "", *sums, "", _milliseconds(total["seconds"]))

    def _last_lines(self):
        """Return what stands below the sums."""
        total, ms = self.totals(), _milliseconds
        beyond = self.seconds - total["seconds"]
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return [
            f"Whole run: {ms(self.seconds)} ms, of which {ms(beyond)} outside kernels. Sum of the bounds: "
            f"{ms(total['least_seconds'])} ms.",
            f"This machine's best on {threads}: {self.peaks['flops'] / 1e9:.0f} GFLOP/s, "
            f"{self.peaks['bytes'] / 1e9:.1f} GB/s.",
        ]


def _cells(row):
    """Return a row as text."""
    algorithm = ", ".join(
        algorithm if result == "y" else f"{result} {algorithm}" for result, algorithm in row.algorithm.items()
    )
    numbers = _numbers(row.flops, row.bytes_read, row.bytes_written, row.arithmetic_seconds, row.memory_seconds)
    shapes = _size(row.input_shape), _size(row.output_shape)
    return (row.layer, row.words(), *shapes, algorithm, *numbers, row.bound, _milliseconds(row.seconds))


def _line(tag, cells):
    """Return a line of the table in HTML."""
    sides = ["left" if i in _TO_THE_LEFT else "right" for i in range(len(_HEADER))]
    parts = (f'<{tag} style="text-align: {side}">{escape(c)}</{tag}>' for side, c in zip(sides, cells, strict=True))
    return f"<tr>{''.join(parts)}</tr>"


def _numbers(flops, read, written, arithmetic, memory):
    """Return the columns from GFLOP to the least times."""
    counted = flops is not None
    return (
        f"{flops / 1e9:.3f}" if counted else "", f"{read / 1e6:.2f}", f"{written / 1e6:.2f}",
        _milliseconds(arithmetic) if counted else "", _milliseconds(memory),
    )  # fmt: skip


def _size(shape):
    return "x".join(map(str, shape))


def _milliseconds(seconds):
    return f"{1e3 * seconds:.3f}"
