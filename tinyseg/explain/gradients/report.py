"""What `check_gradients` found, as rows, as a table to print, as a picture and as JSON."""

from typing import NamedTuple

import numpy as np

from tinyseg.explain.text import ruled, strict_json

VERDICTS = ("right", "kink", "wrong", "undecided")

_SHOWN = 20  # rows of the table
_MEANINGS = {
    "right": "right",
    "kink": "not differentiable here",
    "wrong": "wrong",
    "undecided": "undecided",
    "unchecked": "not drawn",
}
_COLOURS = {"right": "bluish green", "kink": "yellow", "wrong": "vermilion", "undecided": "reddish purple"}
_LETTERS = {"right": "", "kink": "K", "wrong": "X", "undecided": "?", "unchecked": ""}


class GradientRow(NamedTuple):
    """One element that was checked.

    Attributes
    ----------
    input : str
        Name of the input or parameter.
    element : tuple of int
        Which of its elements.
    tape : float
        The gradient that is checked, of the projection of the outputs that shows the verdict best.
    difference : float
        The same by differences; at a kink the mean of both sides' slopes.
    error : float
        Their distance.
    verdict : {"right", "kink", "wrong", "undecided"}
        ``"kink"``: there is no gradient here, and the tape's is one of those beside it or between them.
        ``"undecided"``: the differences do not settle at any step.
    note : str
        What the verdict rests on: ``"kink"`` or ``"jump"`` where there is no gradient.
    low, high : float
        The slopes to both sides, the lower one first; the derivative where there is one.
    """

    input: str
    element: tuple
    tape: float
    difference: float
    error: float
    verdict: str
    note: str
    low: float
    high: float


class GradientReport:
    """Which gradients are right, which are wrong, and where there are none. ``print`` shows it as a table.

    Parameters
    ----------
    rows : list of GradientRow
        All elements that were checked, input by input.
    shapes : dict of str to tuple of int
        The shape of each input and parameter.
    step : float
        The longest step.
    exact : bool
        Whether every output was looked at by itself.
    projections : int
        How many outputs, or random sums of them, were looked at.
    outputs : int
        How many outputs there are.
    """

    def __init__(self, rows, shapes, step, exact, projections, outputs):
        self.rows, self.shapes, self.step = rows, shapes, step
        self.exact, self.projections, self.outputs = exact, projections, outputs

    @property
    def ok(self):
        """Whether no gradient is wrong and none is undecided; elements at kinks do not count."""
        return not any(row.verdict in ("wrong", "undecided") for row in self.rows)

    @property
    def counts(self):
        """How many elements there are of each verdict, a dict."""
        return {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in VERDICTS}

    def verdicts(self, name):
        """Return the verdict of each element of an input.

        Parameters
        ----------
        name : str
            Of the input or parameter.

        Returns
        -------
        ndarray of str
            Of the input's shape; ``"unchecked"`` where an element was not drawn.

        Raises
        ------
        ValueError
            If there is no such input.
        """
        if name not in self.shapes:
            raise ValueError(f"name is {name!r}; expected one of {', '.join(map(repr, self.shapes))}")
        found = np.full(self.shapes[name], "unchecked", dtype="<U9")
        for row in self.rows:
            if row.input == name:
                found[row.element] = row.verdict
        return found

    def to_json(self):
        """Return everything as the text of a JSON object; slopes that are not finite are null.

        Returns
        -------
        str
        """
        whole = {"ok": self.ok, "counts": self.counts, "shapes": self.shapes, "step": self.step}
        whole |= {"exact": self.exact, "projections": self.projections, "outputs": self.outputs}
        return strict_json({**whole, "rows": [row._asdict() for row in self.rows]})

    # ---- the table -------------------------------------------------------------------------------------------------

    def __str__(self):
        order = sorted(self.rows, key=lambda row: (-_URGENCY[row.verdict], -row.error))
        header = ("input", "element", "tape", "difference", "error", "verdict")
        lines = [header, *map(_cells, order[:_SHOWN])]
        table = ruled(lines, (0, 1, 5))
        more = len(order) - _SHOWN
        rest = [f"... and {more} more, of lesser error" if more == 1 else f"... and {more} more"] * (more > 0)
        return "\n".join([self._title(), "", *table, *rest, table[1], *self._last_lines()])

    __repr__ = __str__

    def _title(self):
        counts = ", ".join(f"{count} {_MEANINGS[name]}" for name, count in self.counts.items() if count)
        return f"Gradients: {counts or 'no elements'}."

    def _last_lines(self):
        """Return what stands below the table."""
        sampled = [
            f"{name}: {checked} of {int(np.prod(shape))} elements, drawn at random."
            for name, shape in self.shapes.items()
            if (checked := sum(row.input == name for row in self.rows)) < np.prod(shape)
        ]
        if self.exact:
            outputs = "the output" if self.outputs == 1 else f"each of the {self.outputs} outputs by itself"
        else:
            outputs = f"{self.projections} random sums of the {self.outputs} outputs"
        lines = [*sampled, f"Of {outputs}; steps from {self.step:.2g} down to {self.step / 65536:.2g}."]
        if self.counts["kink"]:
            lines += [
                "Not differentiable: the slopes to both sides, in brackets, differ however short the step, so a "
                "difference tells nothing.",
                "There the tape's gradient lies between them, and is right beside the place.",
            ]
        return lines

    # ---- the picture -----------------------------------------------------------------------------------------------

    def figure(self, width=9.6):
        """Draw each input as maps of cells: right, not differentiable, wrong.

        Parameters
        ----------
        width : float
            In inches.

        Returns
        -------
        matplotlib.figure.Figure
            A panel for each input; planes of inputs with more than two axes stand side by side.
        """
        from tinyseg.explain.gradients.figure import draw_verdicts

        verdicts = {name: self.verdicts(name) for name in self.shapes}
        looks = {name: (_COLOURS.get(name), _LETTERS[name], _MEANINGS[name]) for name in _MEANINGS}
        return draw_verdicts(verdicts, looks, self._title(), width)


_URGENCY = {"right": 0, "kink": 1, "undecided": 2, "wrong": 3}


def _cells(row):
    """Return a row as text."""
    difference = f"{row.difference:.6g}"
    verdict = row.verdict
    if row.verdict == "kink":
        difference = f"[{row.low:.5g}, {row.high:.5g}]"
        verdict = "not differentiable" + (": a jump" if row.note == "jump" else "")
    elif row.note:
        verdict += f": {row.note}"
    index = "[" + ", ".join(map(str, row.element)) + "]"
    return row.input, index, f"{row.tape:.6g}", difference, f"{row.error:.2g}", verdict
