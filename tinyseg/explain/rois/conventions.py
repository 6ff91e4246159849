"""One table of what different libraries make of the same box, each line reproduced by our own kernels."""

import textwrap
from typing import Any, NamedTuple

import numpy as np

from tinyseg.explain import checks
from tinyseg.explain.rois import conventions_rows as rows
from tinyseg.explain.rois.calls import checked_features, checked_how, checked_roi
from tinyseg.explain.text import ruled, strict_json

_WIDTH = 110  # of the lines below the table

#: Name, who else, defaults, which function of `conventions_rows`, what is particular, where the numbers would differ.
_ROWS: tuple[tuple[str, str, dict[str, Any], Any, str, str], ...] = (
    (
        "torchvision roi_align", "Detectron, Caffe2, maskrcnn-benchmark",
        {"aligned": False, "sampling_ratio": -1}, rows.not_aligned,
        "Cell i lies at i, so that everything is seen half a cell too far to the lower right. A box counts as at least "
        "1x1 cells.", "",
    ),
    (
        "detectron2 ROIAlign", "mmcv RoIAlign",
        {"aligned": True, "sampling_ratio": 0}, rows.aligned,
        "Cell i covers i to i + 1 and lies at i + 0.5: half a cell is taken off the corners.", "",
    ),
    (
        "ONNX RoiAlign", "",
        {"coordinate_transformation_mode": "half_pixel", "mode": "avg", "sampling_ratio": 0}, rows.aligned,
        "half_pixel, the default since opset 16, is aligned=True.", "",
    ),
    (
        "ONNX RoiAlign, output_half_pixel", "opsets 10 to 15, which know nothing else",
        {"mode": "avg", "sampling_ratio": 0}, rows.not_aligned,
        "output_half_pixel is aligned=False.", "",
    ),
    (
        "ONNX RoiAlign, mode max", "ONNX's reference and ONNX Runtime",
        {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 0}, rows.largest_part,
        "Not the largest sample, but the largest of weight times value over all cells of all samples: smaller than "
        "any of them between cells.", "",
    ),
    (
        "mmcv RoIAlign, pool_mode max", "OpenVINO",
        {"aligned": True, "sampling_ratio": 0}, rows.largest_sample,
        "The largest interpolated sample of each bin.", "",
    ),
    (
        "TensorFlow crop_and_resize", "",
        {"method": "bilinear", "extrapolation_value": 0.0}, rows.crop,
        "One sample per bin, the first and the last on the corners of the box, which is divided by the size of the "
        "picture and multiplied by feature size - 1.",
        "",
    ),
    (
        "tf-faster-rcnn", "",
        {"POOLING_SIZE": 7}, rows.crop_max,
        "crop_and_resize of a box divided by feature size - 1, so that cell i lies at i, to twice the size; then the "
        "largest of 2x2.", "",
    ),
    (
        "Matterport Mask R-CNN", "",
        {}, rows.crop_matterport,
        "crop_and_resize with x2 - 1 and y2 - 1, divided by picture size - 1.", "",
    ),
    (
        "tensorpack", "",
        {"pad_border": True}, rows.crop_mean,
        "crop_and_resize to twice the size, corners moved so that samples lie where RoIAlign has them, on maps with a "
        "border of repeated cells, then the mean of 2x2: aligned, with sampling_ratio=2.", "",
    ),
    (
        "Caffe ROIPooling", "Fast R-CNN; torchvision roi_pool, ONNX MaxRoiPool",
        {}, rows.pooled,
        "Corners are rounded to cells, and the last cell belongs to the box: sizes are one more than the difference.",
        "",
    ),
    (
        "mmcv RoIPool", "",
        {"spatial_scale": 1.0}, rows.pooled_bins,
        "x2 + 1 and y2 + 1; corners are not rounded, only the edges of bins, outwards, so that bins overlap.", "",
    ),
    (
        "mmdetection 1.x RoIAlign", "",
        {"aligned": False, "sample_num": 0}, rows.plus_one,
        "x2 + 1 and y2 + 1 in picture pixels before scaling, no half cell, no least size.", "",
    ),
    (
        "faster-rcnn.pytorch RoIAlignAvg", "",
        {}, rows.spread,
        "Sizes one cell more than the difference; a row and a column of samples more than bins, the first and the last "
        "on the corners; then the mean of each 2x2 neighbours.",
        "where a sample lies up to a cell outside of the map: before the first cell it gives 0, beyond the last it "
        "goes on along the slope; here it is moved onto the map.",
    ),
)  # fmt: skip

#: What no call of our kernels gives, and why.
_NOT_REPRODUCED = {
    "Precise RoI Pooling": "the integral of the interpolated map over each bin: RoIAlign comes near it with many "
    "samples, but never has it, and outside of the map it takes 0",
    "rotated RoIAlign": "samples lie in rows along a turned box; ours are parallel to the axes",
}


class Convention(NamedTuple):
    """What one library makes of a box.

    Attributes
    ----------
    name : str
    also : str
        Who does the same.
    defaults : dict
        The library's default values.
    operator : {"roi_align", "roi_pool"}
        Which of our kernels gave the numbers.
    boxes : ndarray, shape (B, 4)
        x1, y1, x2, y2 that it was given: in picture pixels, or in cells where its ``spatial_scale`` is 1.
    arguments : dict
        Its other arguments.
    afterwards : str
        What was done with its output, in words; empty if nothing.
    output : ndarray, shape (C, oH, oW)
        The numbers.
    difference : float
        The largest distance of a number to the first row's.
    what : str
        What is particular.
    limits : str
        Where the library's own numbers would be others; empty if nowhere but by rounding.
    points : ndarray, shape (M, 2)
        x and y of the samples, or of the cells that were maxima in channel 0; a cell's centre has whole numbers.
    """

    name: str
    also: str
    defaults: dict
    operator: str
    boxes: np.ndarray
    arguments: dict
    afterwards: str
    output: np.ndarray
    difference: float
    what: str
    limits: str
    points: np.ndarray

    def call(self):
        """Return the call of our kernel in a few words.

        Returns
        -------
        str
        """
        box = ", ".join(f"{corner:.4g}" for corner in self.boxes[0])
        text = f"{self.operator} [{box}]" if len(self.boxes) == 1 else f"{self.operator} of {len(self.boxes)} boxes"
        text += ", {}x{}".format(*self.arguments["output_size"])
        if self.operator == "roi_align":
            ratio = self.arguments["sampling_ratio"]
            text += f", {ratio if ratio > 0 else 'adaptive'}{', aligned' * self.arguments['aligned']}"
        return text


def conventions(features=None, roi=(1, 1, 3, 3), *, output_size=2, spatial_scale=1.0, sampling_ratio=0, picture=None):
    """Show what different libraries make of the same box.

    Each line is computed by our RoIAlign or RoIPool, called with the box and the arguments that make it do what that
    library does: that is all that sets them apart.

    Parameters
    ----------
    features : array or Tensor, shape (H, W) or (C, H, W), optional
        Feature maps of one picture. The ramp 0, 1, 2, ... of 5x5 cells if left out.
    roi : array_like of 4 numbers
        x1, y1, x2, y2 in picture pixels.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis, for the libraries that let one choose; 0 or less for adaptive, which is the default of
        all of them.
    picture : (float, float), optional
        Height and width of the picture in pixels, which two libraries divide by; that of the maps divided by
        ``spatial_scale`` if left out.

    Returns
    -------
    Conventions
        ``print`` shows it as a table, ``figure()`` draws where each library looks.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the box has no area.

    Examples
    --------
    >>> import tinyseg
    >>> table = tinyseg.explain.conventions()
    >>> for name in ("torchvision roi_align", "detectron2 ROIAlign", "TensorFlow crop_and_resize"):
    ...     print(name, table[name].output.ravel().round(3).tolist())
    torchvision roi_align [9.0, 10.0, 14.0, 15.0]
    detectron2 ROIAlign [6.0, 7.0, 11.0, 12.0]
    TensorFlow crop_and_resize [4.8, 6.4, 12.8, 14.4]
    """
    x = checked_features(np.arange(25.0).reshape(5, 5) if features is None else features)
    if len(x) != 1:
        raise ValueError(f"features has {len(x)} pictures; expected one")
    rois = checked_roi(roi, x.dtype, 1)
    size, spatial_scale, ratio = checked_how(x, rois, output_size, spatial_scale, sampling_ratio)
    box = rois[0, 1:].astype(np.float64)
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"roi is {box.tolist()}; expected x2 above x1 and y2 above y1")
    if picture is None:
        picture = tuple(cells / spatial_scale for cells in x.shape[2:])
    elif not isinstance(picture, tuple | list) or len(picture) != 2:
        raise ValueError(f"picture is {picture!r}; expected its height and width")
    height, width = (checks.above_zero("picture", length) for length in picture)
    asked = rows.Asked(x, box, size, spatial_scale, max(ratio, 0), (height, width))
    found: list[Convention] = []
    for name, also, defaults, function, what, limits in _ROWS:
        answer = function(asked)
        first = found[0].output if found else answer.output
        difference = float(np.abs(answer.output.astype(np.float64) - first).max())
        found.append(
            Convention(
                name, also, defaults, answer.operator, answer.boxes, answer.arguments, answer.afterwards,
                answer.output, difference, what, limits, answer.points,
            )
        )  # fmt: skip
    return Conventions(found, x[0], box, spatial_scale, size)


class Conventions:
    """The same box in the hands of different libraries: what `tinyseg.explain.conventions` returns.

    ``print`` shows it as a table; indexed by a name it gives a `Convention`.

    Parameters
    ----------
    rows : list of Convention
    features : ndarray, shape (C, H, W)
        The feature maps.
    roi : ndarray, shape (4,)
        x1, y1, x2, y2 in picture pixels.
    spatial_scale : float
        Feature cells per picture pixel.
    output_size : (int, int)
        Number of bins: vertical, horizontal.

    Attributes
    ----------
    not_reproduced : dict of str to str
        Operators whose numbers no call of ours gives, and why.
    """

    def __init__(self, rows, features, roi, spatial_scale, output_size):
        self.rows, self.features, self.roi = rows, features, roi
        self.spatial_scale, self.output_size = spatial_scale, output_size
        self.not_reproduced = dict(_NOT_REPRODUCED)

    def __getitem__(self, name):
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r}; there are {', '.join(row.name for row in self.rows)}")

    def figure(self):
        """Draw where each library looks: its samples, or the cells that it took as maxima.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("conventions.png")`` writes it; a notebook shows it.
        """
        from tinyseg.explain.rois.conventions_figure import draw

        return draw(self)

    def to_json(self):
        """Return everything as the text of a JSON object; NaN and infinity are null.

        Returns
        -------
        str
        """
        whole = {
            "roi": self.roi, "spatial_scale": self.spatial_scale, "output_size": self.output_size,
            "features": self.features, "rows": [row._asdict() for row in self.rows],
            "not_reproduced": self.not_reproduced,
        }  # fmt: skip
        return strict_json(whole)

    def __str__(self):
        lines = [("who", "the call of our kernel", "first numbers", "differs by")]
        for row in self.rows:
            numbers = " ".join(f"{value:.4g}" for value in row.output[0].ravel()[:4])
            lines.append((row.name, row.call(), numbers, f"{row.difference:.4g}"))
        text = ruled(lines, range(4))
        corners, (height, width) = ", ".join(f"{corner:g}" for corner in self.roi), self.output_size
        title = f"box [{corners}], {height}x{width} bins, {self.spatial_scale:g} cells per picture pixel"
        notes = ["differs by: the largest difference of a number to the first line's."]
        for row in self.rows:
            defaults = ", ".join(f"{name}={value}" for name, value in row.defaults.items())
            parts = (
                (row.what, ""), (row.afterwards, "After the call: "), (row.limits, "Its own numbers differ: "),
                (row.also, "The same: "), (defaults, "Defaults: "),
            )  # fmt: skip
            sentences = [start + words.rstrip(".") + "." for words, start in parts if words]
            notes.append(f"{row.name}. " + " ".join(sentences))
        notes += [f"Not reproduced: {name}, {why}." for name, why in self.not_reproduced.items()]
        return "\n".join([title, *text, "", *(textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in notes)])

    __repr__ = __str__
