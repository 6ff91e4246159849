"""A check of gradients that knows kinks: where a function bends or jumps, it says so instead of "wrong".

Central differences take the slope for the mean of both sides. At a corner that is no slope at all, and beside a corner
it is wrong as soon as the step reaches across: a check that knows one step only fails now and then, on right gradients.
Here the step shrinks from ``step`` to a 65536th of it, and the difference of the slopes on both sides, the gap, is
watched. Where the function is smooth the gap shrinks with the step, however strongly it is curved; at a corner it
stays; at a jump it grows; and a corner beside the place is passed when the step becomes shorter than the way to it.

No wrong gradient is excused by a kink: there it must lie between the slopes of both sides, be right on the smooth
pieces beside it, and where it claims to be the slope of one side, be the gradient of one such piece in all elements.
"""

from contextlib import ExitStack

import numpy as np

from tinyseg import random
from tinyseg.explain import checks
from tinyseg.explain.gradients.kinks import LEVELS, SHRINK, slopes
from tinyseg.explain.gradients.report import GradientReport, GradientRow
from tinyseg.explain.gradients.subject import Subject
from tinyseg.explain.networks.runs import unchanged
from tinyseg.nn import Module

_EXACT = 32  # outputs up to which the Jacobian is taken row by row
_RANDOM = 3  # random projections beyond
_BESIDE = 3  # places beside a kink to look at
_PIECES = 40  # steps towards a smooth piece that has the gradient


def check_gradients(
    function, inputs, *, backward=None, parameters=None, step=1e-4, rtol=1e-6, atol=1e-9, projections=None,
    samples=500, seed=0,
):  # fmt: skip
    """Compare the tape's gradients with central differences in float64, and find where there is no gradient.

    Each element is moved on its own, by ``step`` and then by ever less. Of several outputs, up to 32 are looked at one
    by one, which gives the whole Jacobian; of more, random sums.

    Parameters
    ----------
    function : callable or Module
        Takes the inputs as Tensors; returns a Tensor, or tensors in a list, tuple or dict, of which those count that
        gradients flow through. With ``backward`` it takes and returns arrays.
    inputs : array_like, Tensor, or sequence or dict of them
        What the function is called with, by place, or by name for a dict. Elements of all floats are checked, as
        float64. Whatever else is handed over as it is. A single array may stand by itself.
    backward : callable, optional
        For a pair of kernels: ``backward(dy, result, *inputs)`` returns the gradient of each float input, or of a
        single one by itself, where ``result`` is what ``function`` returned. Its first array is the output.
    parameters : Module, optional
        Whose parameters are to be checked as well; those of ``function`` if it is a module. Without ``requires_grad``
        they are left out. During the check the module is float64.
    step : float
        The longest step, in units of the input; 65536 times as long as the shortest.
    rtol, atol : float
        A gradient is right if it differs by at most ``atol + rtol * |gradient|`` and what rounding explains.
    projections : int, optional
        How many random sums of the outputs are looked at; if left out, every output where there are up to 32, otherwise
        3 sums.
    samples : int
        Elements of each input and parameter that are checked, drawn at random where it has more; the report says so.
    seed : int
        Of all that is drawn.

    Returns
    -------
    GradientReport
        ``print`` shows it as a table; ``ok`` is True where nothing is wrong; ``figure()`` draws where what is.

    Raises
    ------
    TypeError
        If ``function`` or ``backward`` cannot be called, ``parameters`` is no Module, or a number is none.
    ValueError
        If no input or parameter is a float, no gradient flows from the output, the output is not finite, or a number
        is out of its range.

    Notes
    -----
    "Not differentiable" is what steps down to ``step / 16384`` see: a bend within a shorter distance counts as a
    corner. Inputs, parameters, statistics, gradients and tinyseg's source of chance are afterwards as before, and every
    evaluation draws the same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyseg import explain, ops
    >>> report = explain.check_gradients(ops.relu, np.array([-1.0, 0.0, 2.0]))
    >>> report.ok, report.counts
    (True, {'right': 2, 'kink': 1, 'wrong': 0, 'undecided': 0})
    """
    step = checks.above_zero("step", step)
    rtol, atol = checks.not_below_zero("rtol", rtol), checks.not_below_zero("atol", atol)
    samples, seed = checks.whole("samples", samples, 1), checks.whole("seed", seed)
    projections = None if projections is None else checks.whole("projections", projections, 1)
    for name, value in (("function", function), ("backward", backward)):
        if not callable(value) and not (name == "backward" and value is None):
            raise TypeError(f"{name} is a {type(value).__name__}; expected what can be called")
    if not isinstance(parameters, Module | None):
        raise TypeError(f"parameters is a {type(parameters).__name__}; expected a Module")
    owner = parameters if parameters is not None or not isinstance(function, Module) else function
    with ExitStack() as stack:
        state = random.get_state()
        stack.callback(random.set_state, state)
        for module in {id(m): m for m in (function, owner) if isinstance(m, Module)}.values():
            stack.enter_context(unchanged(module))
            stack.callback(_restore, [(t, t.array) for t in (*module.parameters(), *module.buffers())])
            module.to(dtype=np.float64)
        own = {} if owner is None else {name: t for name, t in owner.named_parameters() if t.requires_grad}
        subject = Subject(function, inputs, backward, own, state)
        with np.errstate(all="ignore"):  # where a function ends, what lies beside is not finite
            return _Check(subject, step, rtol, atol, projections, samples, np.random.default_rng(seed)).report()


def _restore(arrays):
    for tensor, array in arrays:
        tensor.array = array


def _products(v, values):
    """Return products where an output that does not count is 0, also times infinity."""
    return np.where(v == 0, 0.0, v * values)


class _Check:
    """One run of the check."""

    def __init__(self, subject, step, rtol, atol, projections, samples, rng):
        self._subject, self._step, self._rtol, self._atol, self._rng = subject, step, rtol, atol, rng
        self._y = subject.outputs()
        if not np.isfinite(self._y).all():
            raise ValueError("the output of function is not finite; expected finite numbers to take differences of")
        count = self._y.size
        self._exact = projections is None and count <= _EXACT
        self._cotangents = np.eye(count) if self._exact else self._random(projections or _RANDOM)
        self._tape = subject.gradients(self._cotangents)
        self._noise = self._measured_noise()
        self._places = {name: self._sampled(array.size, samples) for name, array in subject.arrays.items()}

    def _random(self, count):
        """Return random cotangents: none of their numbers is near 0."""
        shape = (count, self._y.size)
        return self._rng.uniform(0.5, 1.5, shape) * self._rng.choice([-1, 1], shape)

    def _sampled(self, size, samples):
        return np.arange(size) if size <= samples else np.sort(self._rng.choice(size, samples, replace=False))

    def _measured_noise(self):
        """Return the rounding error of each output: from the fourth differences along a very short straight line.

        Hamming's table of differences, as in Moré and Wild, "Estimating computational noise" (2011). The line begins at
        the place and leaves it, so that a corner there is not crossed.
        """
        before = {name: array.copy() for name, array in self._subject.arrays.items()}
        ways = {name: self._rng.uniform(0.5, 1, array.shape) for name, array in before.items()}
        values = []
        for i in range(1, 8):
            for name, array in self._subject.arrays.items():
                array[...] = before[name] + i * self._step * SHRINK ** -(LEVELS - 1) * ways[name]
            values.append(self._subject.outputs())
        for name, array in self._subject.arrays.items():
            array[...] = before[name]
        fourth = np.abs(np.diff(values, 4, axis=0)).max(axis=0) / np.sqrt(70)
        least = 2 * np.finfo(np.float64).eps * np.maximum(np.abs(self._y), np.finfo(np.float64).tiny)
        return np.where(np.isfinite(fourth), np.maximum(least, 2 * fourth), least)

    def report(self):
        """Return what all elements gave."""
        rows = [self._row(name, int(place)) for name, places in self._places.items() for place in places]
        kinks = [i for i, row in enumerate(rows) if row.verdict == "kink"]
        if kinks:
            self._look_beside(rows, kinks)
        shapes = {name: array.shape for name, array in self._subject.arrays.items()}
        return GradientReport(rows, shapes, self._step, self._exact, len(self._cotangents), self._y.size)

    # ---- one element -----------------------------------------------------------------------------------------------

    def _slopes(self, name, place, step, levels=LEVELS):
        """Return the slopes of all outputs when one element moves."""
        size = np.nanmax(np.abs([0, *(tape[name].flat[place] for tape in self._tape)]))
        tolerance = self._atol + self._rtol * (size if np.isfinite(size) else 0)
        return self._slopes_together([(name, place)], step, levels, tolerance)

    def _slopes_together(self, places, step=None, levels=LEVELS, tolerance=0.0):
        """Return the slopes of all outputs when elements move all by the same distance."""
        step = self._step if step is None else step
        flat = [self._subject.arrays[name].reshape(-1) for name, _ in places]
        before = [array[place] for array, (_, place) in zip(flat, places, strict=True)]

        def moved_by(distance):
            for array, (_, place), value in zip(flat, places, before, strict=True):
                array[place] = value + distance
            try:
                return self._subject.outputs()
            finally:
                for array, (_, place), value in zip(flat, places, before, strict=True):
                    array[place] = value

        return slopes(moved_by, self._subject.outputs(), before[0], step, self._noise, tolerance, levels)

    def _row(self, name, place):
        """Return the verdict on one element."""
        tape = np.array([gradient[name].flat[place] for gradient in self._tape])
        found = self._slopes(name, place, self._step)
        if self._differs(tape, found) and not found.thorough:
            found = found.thoroughly()
        verdict, worst, note = self._verdict(tape, found)
        left, right = (float(_products(self._cotangents[worst], side).sum()) for side in (found.left, found.right))
        difference = float(_products(self._cotangents[worst], found.central).sum())
        shape = self._subject.arrays[name].shape
        index = tuple(map(int, np.unravel_index(place, shape))) if shape else ()
        return GradientRow(name, index, float(tape[worst]), difference, abs(float(tape[worst]) - difference), verdict,
                           note, min(left, right), max(left, right))  # fmt: skip

    def _central(self, found):
        return _products(self._cotangents, found.central).sum(axis=1)

    def _differs(self, tape, found):
        return not np.all(np.abs(tape - self._central(found)) <= self._allowed(tape, found))

    def _allowed(self, tape, found):
        """Return by how much each projection may be off."""
        size = np.fmax(np.abs(tape), np.abs(self._central(found)))
        size[~np.isfinite(size)] = 0
        return self._atol + self._rtol * size + 4 * np.sqrt(self._cotangents**2 @ found.rounding**2)

    def _bounds(self, found):
        """Return the least and the largest sum of slopes of one side or the other of each output; and the slack."""
        ends = [_products(self._cotangents, side) for side in (found.left, found.right)]
        low, high = np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
        wide = high - low
        unsure = _products(np.abs(self._cotangents), found.unsure).sum(axis=1)
        return low, high, 1e-3 * np.where(np.isfinite(wide), wide, 0) + np.where(np.isfinite(unsure), unsure, 0)

    def _verdict(self, tape, found):
        """Return verdict, the projection that shows it best, and a note."""
        central = self._central(found)
        excess = np.abs(tape - central) / self._allowed(tape, found)
        excess = np.where(np.isfinite(excess), excess, np.inf)
        if found.kinked.any():
            low, high, _ = self._bounds(found)
            return "kink", int(np.argmax(np.nan_to_num(high - low))), found.kind
        worst = int(np.argmax(excess))
        if excess[worst] <= 1:
            return "right", worst, ""
        unsure = _products(np.abs(self._cotangents), found.unsure).sum(axis=1)
        if np.isfinite(tape[worst]) and unsure[worst] > 0.25 * abs(tape[worst] - central[worst]):
            return "undecided", worst, "the differences do not settle as the step shrinks"
        return "wrong", worst, ""

    # ---- beside kinks ----------------------------------------------------------------------------------------------

    def _look_beside(self, rows, kinks):
        """Check elements at kinks once more, on the smooth pieces beside, and change the rows that are wrong there."""
        arrays = self._subject.arrays
        chosen = [rows[i] for i in kinks]
        places = [(row.input, int(np.ravel_multi_index(row.element, arrays[row.input].shape)) if row.element else 0)
                  for row in chosen]  # fmt: skip
        found = [self._slopes(*place, self._step).thoroughly() for place in places]
        tape = np.array([[g[name].flat[place] for g in self._tape] for name, place in places])
        for n in range(len(self._cotangents)):
            self._judge_kinks(rows, kinks, places, found, tape[:, n], n)
        for _ in range(_BESIDE):
            self._compare_beside(rows, kinks, places)

    def _judge_kinks(self, rows, kinks, places, found, tape, n):
        """Change the rows of elements at kinks that are wrong for one projection.

        All is well if some smooth piece beside the place has the tape's gradient in all elements. Where none has, the
        elements that differ must not be the slope of one side: two winners of a tie, or none, each are, but together
        they are the gradient of no piece. They may lie between, as half of a corner's slopes does. But if the function
        is smooth when all move together, their sum must be its slope.
        """
        v = self._cotangents[n]
        bounds = [self._bounds(one) for one in found]
        low, high, slack = (np.array([bound[i][n] for bound in bounds]) for i in range(3))
        wide = np.where(np.isfinite(high - low), high - low, 0)
        slack = slack + self._atol + self._rtol * np.abs(np.where(np.isfinite(tape), tape, 0)) + 0.01 * wide
        sides = [np.array([_products(v, side).sum() for side in side_of_all])
                 for side_of_all in zip(*((one.left, one.right) for one in found), strict=True)]  # fmt: skip
        missed, there = self._nearest_piece(places, tape, n, sides, slack)
        between = ~((tape < low - slack) | (tape > high + slack) | np.isnan(tape))
        for i in missed:
            at = f"at a {found[i].kind}, and not"
            if not between[i]:
                self._mark_wrong(rows, kinks[i], tape[i], there[i], f"{at} between the slopes of both sides")
            elif any(abs(tape[i] - side[i]) <= slack[i] for side in sides):
                self._mark_wrong(rows, kinks[i], tape[i], there[i], f"{at} the gradient of any smooth piece beside it")
        if len(missed) and all(rows[kinks[i]].verdict == "kink" for i in missed):
            together = self._slopes_together(places)
            slope = _products(v, together.central).sum()
            if not together.kinked.any() and not abs(tape.sum() - slope) <= slack.max():
                for i in missed:
                    note = (
                        f"at a {found[i].kind}, and the sum over all elements there is not the slope of moving them all"
                    )
                    self._mark_wrong(rows, kinks[i], tape[i], there[i], note)

    def _nearest_piece(self, places, tape, n, sides, slack):
        """Return which elements differ on the smooth piece found whose gradient is most like the tape's, and that.

        Who comes first wins a tie, in most operators, or who comes last; and of a corner at 0 the left side counts, or
        the right one: such places are tried first, as near as rounding allows and a little farther. Then elements go to
        where they claim to stand, to the right where the tape's gradient is the slope of the right side, and on from
        there, to where it comes nearer. For the largest of linear functions these are the steps of a perceptron, which
        ends where there is such a piece.
        """
        (left, right), count = sides, len(places)
        falling, scale = np.linspace(1, 0.5, count), SHRINK**-6
        largest = max(np.abs(self._subject.arrays[name].flat[place]) for name, place in places)
        least = 64 * count * np.finfo(np.float64).eps * max(largest, np.finfo(np.float64).tiny) / self._step
        ramps = [falling, falling[::-1], -falling, -falling[::-1]]
        nearer = np.where(np.abs(tape - right) < np.abs(tape - left), 1, -1)
        claimed = self._rng.uniform(0.5, 1, count) * nearer
        waiting = [claimed * scale, *(ramp * size for size in (scale, min(least, scale)) for ramp in ramps)]
        missed, there, where = np.arange(count), tape, claimed
        for _ in range(len(waiting) + _PIECES):
            start = waiting.pop() if waiting else where / np.abs(where).max() * scale
            with self._moved(places, start):
                (gradient,) = self._subject.gradients(self._cotangents[n : n + 1])
            now = np.array([gradient[name].flat[place] for name, place in places])
            off = ~((np.abs(now - tape) <= slack) | (now == tape))
            if off.sum() < len(missed) or there is tape:
                missed, there = np.flatnonzero(off), now
            if not len(missed):
                break
            if not waiting:
                way = np.where(off, np.sign(np.nan_to_num(tape - now)) * np.sign(right - left), 0)
                where = where + self._rng.uniform(0.2, 0.6, count) * np.nan_to_num(way)
        return missed, there

    def _compare_beside(self, rows, kinks, places):
        """Compare the tape with differences at a random place beside the kinks."""
        with self._moved(places, self._rng.uniform(0.5, 1, len(places)) * self._rng.choice([-1, 1], len(places))):
            tape = self._subject.gradients(self._cotangents)
            for i, (name, place) in zip(kinks, places, strict=True):
                if rows[i].verdict == "wrong":
                    continue
                found = self._slopes(name, place, self._step / SHRINK**3, LEVELS - 3)
                if found.kinked.any():
                    continue  # another kink
                own = np.array([gradient[name].flat[place] for gradient in tape])
                verdict, worst, _ = self._verdict(own, found)
                if verdict == "wrong":
                    note = f"at a {rows[i].note}; and wrong beside it, where there is none"
                    self._mark_wrong(rows, i, own[worst], self._central(found)[worst], note)

    def _moved(self, places, steps):
        """Return a context in which elements are moved, each by its share of a step."""
        stack = ExitStack()
        for (name, place), share in zip(places, steps, strict=True):
            flat = self._subject.arrays[name].reshape(-1)
            stack.callback(flat.__setitem__, place, flat[place])
            flat[place] += share * self._step
        return stack

    @staticmethod
    def _mark_wrong(rows, i, tape, difference, note):
        """Change the verdict on an element, unless it is wrong already."""
        tape, difference = float(tape), float(difference)
        if rows[i].verdict != "wrong":
            rows[i] = rows[i]._replace(
                verdict="wrong", note=note, tape=tape, difference=difference, error=abs(tape - difference)
            )
