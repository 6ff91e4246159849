"""The RoI lab: a box to drag over a feature map, with what RoIPool and RoIAlign make of it."""

from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from tinyseg import backend
from tinyseg.explain.maps import maps
from tinyseg.explain.rois import as_json
from tinyseg.explain.rois.compare import RoIComparison
from tinyseg.explain.rois.lab_still import still
from tinyseg.explain.rois.trace import roi as trace_roi
from tinyseg.explain.text import side_by_side
from tinyseg.tensor import Tensor

OPERATORS = ("roi_pool", "roi_align")
GRADIENTS = ("all", "cell")
STEP = 1 / 16  # pixels: where boxes that nobody gave begin and end


class RoILabPart(NamedTuple):
    """What one operator makes of the lab's box.

    Attributes
    ----------
    trace : RoITrace or None
        Bins, samples and weights. Here and below, None where the operator refuses the box.
    output : ndarray, shape (oH, oW), or None
        What the kernel in use returned, in the map's type.
    gradient : ndarray, shape (H, W), or None
        What its backward kernel returned: the gradient of the map, for a gradient ``dy`` of 1 at all outputs or at the
        chosen one.
    error : str or None
        The kernel's sentence if it refuses the box.
    """

    trace: Any  # None only if error is not
    output: Any
    gradient: Any
    error: str | None


class RoILabResult(NamedTuple):
    """What the lab shows for a box.

    Attributes
    ----------
    roi_pool, roi_align : RoILabPart
        Of each operator.
    """

    roi_pool: RoILabPart
    roi_align: RoILabPart


def roi_lab(features=None, roi=None, *, output_size=2, spatial_scale=1.0, sampling_ratio=2, aligned=True, channel=0):
    """Return a lab in which one drags a box over a feature map, to see what RoIPool and RoIAlign make of it.

    As the last line of a notebook's cell it is a widget (JupyterLab, VS Code, Colab): RoIPool's rounded box, bins and
    maxima beside RoIAlign's samples and weights, the pooled numbers, and which cells get gradient. Every number is
    computed in Python, by the kernels of the backend in use. Where nothing can be dragged (in an executed notebook that
    is read as a page, or without the package anywidget) the same is shown as a picture.

    Parameters
    ----------
    features : ndarray or Tensor, shape (H, W), (C, H, W) or (N, C, H, W), optional
        The feature map, float32 or float64; a small one of two hills if left out.
    roi : sequence of float, optional
        The box to begin with: ``x1, y1, x2, y2`` in picture pixels, before it the number of the picture where there
        are several; in the middle of the map if left out.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        RoIAlign's samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    aligned : bool
        Whether RoIAlign subtracts half a cell from the scaled corners.
    channel : int
        Which channel of the map.

    Returns
    -------
    RoILab

    Raises
    ------
    TypeError, ValueError
        As `tinyseg.explain.roi`; if there is no such channel.

    Notes
    -----
    Girshick, Fast R-CNN, arXiv:1504.08083; He et al., Mask R-CNN, arXiv:1703.06870; both as torchvision computes them.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyseg import explain
    >>> lab = explain.roi_lab(np.arange(25.0).reshape(5, 5), (0, 0, 2, 2))
    >>> lab.result.roi_align.output.tolist()
    [[0.75, 1.625], [5.125, 6.0]]
    >>> lab.box = (1, 0, 3, 2)
    >>> lab.result.roi_align.output.tolist()
    [[1.625, 2.625], [6.0, 7.0]]
    """
    features = _hills() if features is None else features
    if roi is None:
        roi = _middle(features, spatial_scale)
    trace = trace_roi(features, roi, "roi_pool", output_size=output_size, spatial_scale=spatial_scale)
    if not isinstance(channel, int | np.integer) or not 0 <= channel < len(trace.features):
        raise ValueError(f"channel is {channel!r}; expected a whole number from 0 to {len(trace.features) - 1}")
    return RoILab(trace.features[channel], roi[-4:], output_size, spatial_scale, sampling_ratio, aligned)


def _hills():
    """Return a map of two hills, in whole numbers that differ where it matters for a maximum."""
    y, x = np.mgrid[0:8, 0:10]
    hills = 80 * np.exp(-((y - 2.3) ** 2 + (x - 3.2) ** 2) / 5) + 55 * np.exp(-((y - 5.6) ** 2 + (x - 7.4) ** 2) / 7)
    return np.round(hills + 0.3 * x + y).astype(np.float32)


def _middle(features, spatial_scale):
    """Return a box in the middle of a map that no cell's edge meets."""
    h, w = (cells / spatial_scale for cells in np.shape(features)[-2:])
    box = [round(length / STEP) * STEP for length in (0.14 * w, 0.16 * h, 0.71 * w, 0.69 * h)]
    return box if np.ndim(features) < 4 or len(features) == 1 else [0, *box]


class RoILab:
    """A feature map with a box on it, and what RoIPool and RoIAlign make of it: what `roi_lab` returns.

    ``print`` shows the pooled numbers as text. Its attributes can be set, and a widget that is shown follows; what
    neither operator can compute is refused, and leaves all as it was.

    Parameters
    ----------
    features : ndarray, shape (H, W)
        The map, float32 or float64; it is copied.
    box : sequence of float
        ``x1, y1, x2, y2`` in picture pixels.
    output_size, spatial_scale, sampling_ratio, aligned
        As `roi_lab` takes them.
    """

    def __init__(self, features, box, output_size=2, spatial_scale=1.0, sampling_ratio=2, aligned=True):
        self.features, self._scale = np.array(features, order="C"), spatial_scale
        self._widget = None
        self._state = {"cell": (0, 0), "gradient_of": "all"}
        self._set(box=box, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned)

    # ---- what can be set -------------------------------------------------------------------------------------------

    @property
    def box(self):
        """Corners ``x1, y1, x2, y2`` in picture pixels, a tuple of float."""
        return self._state["box"]

    @box.setter
    def box(self, box):
        self._set(box=box)

    @property
    def output_size(self):
        """Number of bins: vertical, horizontal."""
        return self._state["output_size"]

    @output_size.setter
    def output_size(self, output_size):
        self._set(output_size=output_size)

    @property
    def sampling_ratio(self):
        """RoIAlign's samples per bin and axis; 0 or less for as many as the bin has cells, rounded up."""
        return self._state["sampling_ratio"]

    @sampling_ratio.setter
    def sampling_ratio(self, sampling_ratio):
        self._set(sampling_ratio=sampling_ratio)

    @property
    def aligned(self):
        """Whether RoIAlign subtracts half a cell from the scaled corners."""
        return self._state["aligned"]

    @aligned.setter
    def aligned(self, aligned):
        self._set(aligned=aligned)

    @property
    def cell(self):
        """The chosen output, whose bin, samples and weights are marked: row, column."""
        return self._state["cell"]

    @cell.setter
    def cell(self, cell):
        self._set(cell=cell)

    @property
    def gradient_of(self):
        """Whose gradient is shown: ``"all"`` outputs' or that of the chosen ``"cell"`` of the output."""
        return self._state["gradient_of"]

    @gradient_of.setter
    def gradient_of(self, gradient_of):
        self._set(gradient_of=gradient_of)

    # ---- what is shown ---------------------------------------------------------------------------------------------

    @property
    def spatial_scale(self):
        """Feature cells per picture pixel."""
        return self._scale

    @property
    def result(self):
        """What is shown for the box: a `RoILabResult`."""
        return self._result

    @property
    def widget(self):
        """The widget (an ``anywidget.AnyWidget``), to put among others; None where anywidget is not installed."""
        if self._widget is None:
            try:
                from tinyseg.explain.rois.lab_widget import RoILabWidget
            except ModuleNotFoundError as error:
                if error.name not in ("anywidget", "ipywidgets", "traitlets"):
                    raise
                return None
            self._widget = RoILabWidget(self)
        return self._widget

    def _set(self, **changes):
        """Compute with these changes, then keep them: where they are refused, all is as before."""
        state = {**self._state, **changes}
        state["box"], size = _four(state["box"]), state["output_size"]
        state["output_size"] = size if isinstance(size, int | np.integer) else tuple(size)
        if state["gradient_of"] not in GRADIENTS:
            raise ValueError(f"gradient_of is {state['gradient_of']!r}; expected 'all' or 'cell'")
        how = {"output_size": state["output_size"], "spatial_scale": self._scale}
        pool = trace_roi(self.features, state["box"], "roi_pool", **how)
        state["output_size"] = pool.output_size
        state["cell"] = _cell(state["cell"], pool.output_size, "cell" in changes)
        if state == self._state:
            return
        how |= {"sampling_ratio": state["sampling_ratio"], "aligned": state["aligned"]}
        refused = None
        try:
            align = trace_roi(self.features, state["box"], **how)
        except ValueError as error:  # a box that RoIPool takes all the same
            align, refused = None, str(error)
        dy = np.ones((1, 1, *pool.output_size), pool.dtype)
        if state["gradient_of"] == "cell":
            dy[:] = 0
            dy[(0, 0, *state["cell"])] = 1
        with backend.host_work(), _one_thread():
            found = [
                _computed(trace, dy) if trace else RoILabPart(None, None, None, refused) for trace in (pool, align)
            ]
        self._state, self._result = state, RoILabResult(*found)
        if self._widget is not None:
            self._widget.show(self)

    # ---- as text and in a notebook ---------------------------------------------------------------------------------

    def __str__(self):
        size = " x ".join(map(str, self.output_size))
        lines = [f"RoI lab: box {_listed(self.box)} in pixels, {self._scale:g} cells per pixel, output {size}"]
        for op, part in zip(OPERATORS, self._result, strict=True):
            if part.error:
                lines += ["", f"{op} refuses it: {part.error}"]
                continue
            down, across = part.trace.samples_per_bin()
            lines += ["", part.trace.title + (f", {down} x {across} samples per bin" if down else "")]
            rows = [[f"{value:.6g}" for value in row] for row in part.output]
            lines += [f"  {line}" for line in side_by_side(rows)]
            reached, total = np.count_nonzero(part.gradient), part.gradient.sum(dtype=np.float64)
            lines.append(f"  gradient reaches {reached} of {part.gradient.size} cells, sum {total:.6g}")
        return "\n".join(lines)

    __repr__ = __str__

    def figure(self):
        """Draw the map with the box, bins and samples, and the output, for each operator that takes the box.

        Returns
        -------
        matplotlib.figure.Figure
        """
        return RoIComparison(self._traces()).figure(bin=self.cell)

    def gradient_figure(self):
        """Draw which cells get gradient, and how much, for each operator that takes the box.

        Returns
        -------
        matplotlib.figure.Figure
        """
        source = "all outputs" if self.gradient_of == "all" else f"output {self.cell}"
        titles = [trace.title for trace in self._traces()]
        found = [part.gradient for part in self._result if part.trace]
        return maps(*found, titles=titles, title=f"gradient of the map from {source}")

    def _traces(self):
        return [part.trace for part in self._result if part.trace]

    def to_json(self):
        """Return all that is shown as the text of a JSON object.

        Returns
        -------
        str
            With box, settings and for each operator ``output`` and ``gradient`` of the kernels, ``error`` and
            ``trace``, which `tinyseg.explain.rois.as_json` describes.
        """
        shown: dict = {name: list(value) if isinstance(value, tuple) else value for name, value in self._state.items()}
        for op, part in zip(OPERATORS, self._result, strict=True):
            made = part.trace and {
                "output": as_json.plain(part.output),
                "gradient": as_json.plain(part.gradient),
                "trace": part.trace.document(),
            }
            shown[op] = {"error": part.error, **(made or {})}
        return as_json.text({"format": "tinyseg.explain.roi_lab", "version": 1, **shown})

    def _ipython_display_(self):
        """Show the widget, and for readers without a front end a picture, which the widget hides."""
        from IPython.display import display

        widget = self.widget
        display(still(self, widget is not None), raw=True)
        if widget is not None:
            data, metadata = widget._repr_mimebundle_()
            # no second text after the picture's, and for pages without widgets nothing at all
            data = {kind: value for kind, value in data.items() if kind != "text/plain"}
            display({**data, "text/html": "<!-- the RoI lab's widget -->"}, metadata=metadata, raw=True)


@contextmanager
def _one_thread():
    """Compute on one thread, which gives the same bits: waking others takes longer than a box, and a drag is many."""
    threads = backend.get_num_threads()
    backend.set_num_threads(1)
    try:
        yield
    finally:
        backend.set_num_threads(threads)


def _computed(trace, dy):
    """Return what the kernels in use make of a traced box, forward, and backward from ``dy``."""
    x, rois = trace.features[None], np.array([[0, *trace.roi]], trace.dtype)
    if trace.op == "roi_pool":
        y, argmax = backend.kernel("roi_pool_forward")(x, rois, trace.output_size, trace.spatial_scale)
        dx = backend.kernel("roi_pool_backward")(dy, rois, argmax, x.shape)
    else:
        how = trace.spatial_scale, trace.sampling_ratio
        y = backend.kernel("roi_align_forward")(x, rois, trace.output_size, *how, aligned=trace.aligned)
        dx = backend.kernel("roi_align_backward")(dy, rois, x.shape, *how, aligned=trace.aligned)
    return RoILabPart(trace, y[0, 0], dx[0, 0], None)


def _cell(cell, size, chosen):
    """Return row and column of an output; those that were not chosen now follow the size."""
    whole = all(isinstance(part, int | np.integer) for part in cell) and len(cell) == 2
    if not whole or (chosen and not all(0 <= part < most for part, most in zip(cell, size, strict=True))):
        raise ValueError(f"cell is {cell!r}; expected row and column of an output of {size[0]} x {size[1]}")
    return tuple(min(int(part), most - 1) for part, most in zip(cell, size, strict=True))


def _four(box):
    """Return the corners as floats."""
    numbers = np.asarray(box.numpy() if isinstance(box, Tensor) else box)
    if numbers.dtype.kind not in "fiu" or numbers.shape != (4,):
        raise ValueError(f"box is {box!r}; expected four numbers, x1, y1, x2, y2 in picture pixels")
    return tuple(map(float, numbers))


def _listed(numbers):
    return "(" + ", ".join(f"{number:.7g}" for number in numbers) + ")"
