"""What a network runs: one row for every call of a kernel, with its algorithm, its least time and its measured time."""

import time

from tinyseg import backend
from tinyseg.explain import checks
from tinyseg.explain.networks.costs import arrays_in, cost
from tinyseg.explain.networks.plan_table import Plan, PlanRow
from tinyseg.explain.networks.runs import pictures_of, run, unchanged

_RUNS = 3


def plan(model, shape, *, backward=False, peaks=None):
    """Run a network on pictures and say what each of its operators did.

    The network runs on the ``"cpu"`` kernels: once to compile them, then three times, of which the least time of each
    call is shown. Its parameters, statistics, gradients and mode are afterwards what they were before, and so is
    tinyseg's source of chance.

    Parameters
    ----------
    model : Module
        The network.
    shape : sequence of int, or ndarray
        Of the pictures, noise from 0 to 1: ``(N, C, H, W)``; for detectors (`tinyseg.models.GeneralizedRCNN`) also
        ``(C, H, W)``, one picture. Or the pictures themselves, an array of such a shape: a detector that finds nothing
        in noise computes no masks.
    backward : bool
        False: as in prediction (evaluation mode, nothing recorded, normalisation folded into the convolutions). True:
        a step of training, forward and backward; the loss is the sum of the output, for detectors that of the losses
        with one made-up object in each picture.
    peaks : dict of str to float, optional
        What this machine can do: ``flops`` and ``bytes`` per second. Measured, in a second or two, if left out.

    Returns
    -------
    Plan
        ``print`` shows it as a table; ``rows`` has a `PlanRow` for each call, ``to_json()`` gives all of it as text.

    Raises
    ------
    ValueError
        If ``shape`` has another number of sizes, the network does not take such pictures, ``peaks`` lacks a number
        above 0, or with ``backward`` nothing in the network requires gradients.
    TypeError
        If ``model`` is no Module, or ``shape`` does not consist of whole numbers.

    Examples
    --------
    >>> import tinyseg
    >>> model = tinyseg.models.UNet(widths=(4, 8))
    >>> table = tinyseg.explain.plan(model, (1, 1, 32, 32), peaks={"flops": 1e11, "bytes": 1e10})
    >>> table.rows[0].layer, table.rows[0].words()
    ('layer1_conv.conv1', 'conv2d + norm + relu')
    """
    pictures = pictures_of(checks.network(model), shape)
    given = None if peaks is None else checks.peaks(peaks)
    with backend.use_backend("cpu"):
        peaks = backend.machine_peaks() if given is None else given
        runs: list[tuple[list[PlanRow], float]] = []
        for _ in range(_RUNS + 1):
            with unchanged(model):
                runs.append(_run(model, pictures, backward, peaks))
        rows, seconds = _least(runs[1:])  # the first may have compiled
        return Plan(rows, seconds, dict(peaks), backend.get_num_threads())


def _least(runs):
    """Return the rows with the least time of each call, and with these the seconds of a whole run."""
    rows, _ = min(runs, key=lambda run: run[1])
    same = [run for run in runs if [row.words() for row in run[0]] == [row.words() for row in rows]]
    calls = zip(*(other for other, _ in same), strict=True)
    rows = [row._replace(seconds=min(call.seconds for call in of_row)) for row, of_row in zip(rows, calls, strict=True)]
    outside = min(seconds - _in_kernels(other) for other, seconds in same)
    return rows, _in_kernels(rows) + outside


def _in_kernels(rows):
    """Return the seconds of all calls."""
    return sum(row.seconds for row in rows)


def _run(model, pictures, backward, peaks):
    """Run a network once; return the rows and the seconds of the whole run."""
    recorder = _Recorder(model, peaks)
    model.train(backward)
    start = time.perf_counter()
    with backend.record_kernels(recorder):
        run(model, pictures, backward)
    return recorder.rows, time.perf_counter() - start - recorder.seconds


class _Recorder:
    """Makes a row of every call of a kernel, and counts the seconds that this takes."""

    def __init__(self, model, peaks):
        self.rows: list[PlanRow] = []
        self.seconds = 0.0
        self._peaks = peaks
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._layers = {id(tensor.array): name.rpartition(".")[0] for name, tensor in tensors}
        self._kept = [tensor.array for _, tensor in tensors]  # as long as they live, no other array has their id

    def __call__(self, call):
        start = time.perf_counter()
        self.rows.append(self._row(call))
        self.seconds += time.perf_counter() - start

    def _row(self, call):
        """Return the row of a call."""
        operator, folded = _operator(call)
        costs, given, made = cost(call), arrays_in(call.arguments), arrays_in(call.result)
        flops_per_second = self._peaks["flops"] * 4 / given[0].itemsize  # half as many in float64
        backward = call.name.endswith("_backward")
        return PlanRow(
            layer=self._layer(given, () if backward else made[1:]) or operator,
            operator=operator,
            backward=backward,
            folded=folded,
            input_shape=given[0].shape,
            output_shape=made[0].shape if made else (),
            algorithm=backend.planned_algorithms(call),
            **costs._asdict(),
            arithmetic_seconds=(costs.flops or 0) / flops_per_second,
            memory_seconds=(costs.bytes_read + costs.bytes_written) / self._peaks["bytes"],
            seconds=call.seconds,
        )

    def _layer(self, given, statistics):
        """Return the name of the layer whose parameters a call was given.

        Its statistics, those of a normalisation, stand for it from now on: the backward call may be given them alone.
        """
        name = next((self._layers[id(array)] for array in given if id(array) in self._layers), "")
        if name:
            for saved in statistics:
                self._layers[id(saved)] = name
                self._kept.append(saved)
        return name


def operator_words(call):
    """Return the name of the operator that a call is of, with what it does besides: ``"conv2d + norm + relu"``."""
    operator, folded = _operator(call)
    return " + ".join((operator, *folded))


def _operator(call):
    """Return the name of the operator, and what a call does besides."""
    name = call.name.removesuffix("_forward").removesuffix("_backward").removesuffix("_maxima")
    if name.endswith("_joined"):
        return name.removesuffix("_joined"), ("concat",)
    if not name.endswith("_relu"):
        return name, ()
    given = call.arguments
    added = given.get("residual") is not None or (name == "batch_norm_relu" and given.get("y") is not None)
    steps = {"concat": given.get("more") is not None, "norm": given.get("scale") is not None}
    steps |= {"residual": added, "relu": given.get("relu", True)}
    return name.removesuffix("_relu"), tuple(step for step, done in steps.items() if done)
