"""The RoI operators side by side on one box."""

from tinyseg.explain.rois import as_json
from tinyseg.explain.rois.calls import TITLES, checked_ops
from tinyseg.explain.rois.table import box_lines, number
from tinyseg.explain.rois.trace import roi as trace_roi
from tinyseg.explain.text import side_by_side

FORMAT = "tinyseg.explain.roi_compare"


def roi_compare(features, roi, *, output_size, spatial_scale=1.0, sampling_ratio=-1, ops=tuple(TITLES)):
    """Trace what each RoI operator makes of one box: RoIPool, crop_and_resize, RoIAlign not aligned and aligned.

    Parameters
    ----------
    features : array or Tensor, shape (H, W), (C, H, W) or (N, C, H, W)
        The feature map; float32 and float64 stay what they are.
    roi : array_like of 4 or 5 numbers
        ``x1, y1, x2, y2`` of the box in picture pixels; a batch index before them where there are several pictures.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Of RoIAlign: samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    ops : sequence of str
        Some of ``"roi_pool"``, ``"crop_and_resize"``, ``"roi_align"`` (not aligned) and ``"roi_align_aligned"``.

    Returns
    -------
    RoIComparison

    Raises
    ------
    TypeError, ValueError
        As `roi`.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyseg import explain
    >>> ramp = np.arange(25.0).reshape(5, 5)
    >>> comparison = explain.roi_compare(ramp, (0, 0, 2, 2), output_size=1, sampling_ratio=2)
    >>> [round(trace.output.item(), 3) for trace in comparison.traces]
    [12.0, 4.8, 6.0, 3.0]
    """
    how = {"output_size": output_size, "spatial_scale": spatial_scale}
    sampled = {**how, "sampling_ratio": sampling_ratio}
    calls = {
        "roi_pool": ("roi_pool", how),
        "crop_and_resize": ("crop_and_resize", how),
        "roi_align": ("roi_align", {**sampled, "aligned": False}),
        "roi_align_aligned": ("roi_align", {**sampled, "aligned": True}),
    }
    chosen = [calls[op] for op in checked_ops(ops)]
    return RoIComparison([trace_roi(features, roi, op, **options) for op, options in chosen])


class RoIComparison:
    """Several operators on one box: what `tinyseg.explain.roi_compare` returns. ``print`` shows it as a table.

    Parameters
    ----------
    traces : list of RoITrace
        One for each operator.

    Attributes
    ----------
    traces : list of RoITrace
        One for each operator.
    """

    def __init__(self, traces):
        self.traces = list(traces)

    def figure(self, channel=0, bin=(0, 0)):
        """Draw the operators side by side: the map with bins and samples of each, and its output below.

        Parameters
        ----------
        channel : int
            Whose values.
        bin : (int, int) or None
            Row and column of the bin that is marked, with the cells that count in it; None for none.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("rois.png")`` writes it; a notebook shows it.
        """
        from tinyseg.explain.rois.figure import draw

        return draw(self.traces, *self.traces[0].chosen(channel, bin), beside=False)

    def svg(self, channel=0, bin=(0, 0)):
        """Return the text of `figure` as an SVG file.

        Parameters
        ----------
        channel : int
            Whose values.
        bin : (int, int) or None
            Which bin is marked.

        Returns
        -------
        str
        """
        from tinyseg.explain.rois.figure import svg

        return svg(self.figure(channel, bin), "; ".join(trace.title for trace in self.traces))

    def html(self, channel=0):
        """Return a page with all operators, that needs no network: point at a bin to see what it is made of.

        Parameters
        ----------
        channel : int
            Whose values.

        Returns
        -------
        str
        """
        from tinyseg.explain.rois.page import page

        return page(self.traces, self.traces[0].chosen(channel, None)[0])

    def to_json(self, channel=None):
        """Return the text of a JSON object: ``format``, ``version`` and ``traces``, as `RoITrace.to_json` writes them.

        Parameters
        ----------
        channel : int, optional
            Of one channel alone; of all without it.

        Returns
        -------
        str
            One line.
        """
        documents = [trace.document(channel) for trace in self.traces]
        return as_json.text({"format": FORMAT, "version": as_json.VERSION, "traces": documents})

    def table(self, channel=0):
        """Return for each operator how it places the box and its bins, and all outputs.

        Parameters
        ----------
        channel : int
            Whose values.

        Returns
        -------
        str
        """
        channel = self.traces[0].chosen(channel, None)[0]
        lines = []
        for trace in self.traces:
            grid = side_by_side([[number(value) for value in row] for row in trace.output[channel]])
            lines += [trace.title, *(f"  {line}" for line in box_lines(trace)), "  output"]
            lines += [*(f"    {line}" for line in grid), ""]
        return "\n".join([*lines, "print(comparison.traces[0]) shows the cells and samples of the first."])

    def __str__(self):
        return self.table()

    __repr__ = __str__
