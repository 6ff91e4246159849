"""Whose RoI operator reads a box how, and which call of ours gives the same numbers: one function for each reading."""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyseg import backend
from tinyseg.explain.rois.calls import crop_and_resize, crop_boxes


class Asked(NamedTuple):
    """What every library is asked for: one box of one picture.

    Attributes
    ----------
    x : ndarray, shape (1, C, H, W)
    roi : ndarray, shape (4,)
        x1, y1, x2, y2 in picture pixels.
    size : (int, int)
        Rows and columns of bins.
    scale : float
        Feature cells per picture pixel.
    ratio : int
        Samples per bin and axis, where a library lets one choose; 0 for adaptive.
    picture : (float, float)
        Height and width of the picture.
    """

    x: np.ndarray
    roi: np.ndarray
    size: tuple
    scale: float
    ratio: int
    picture: tuple


class Answer(NamedTuple):
    """What our kernel was called with, and what came of it.

    Attributes
    ----------
    operator : {"roi_align", "roi_pool"}
    boxes : ndarray, shape (B, 4)
    arguments : dict
        The others.
    afterwards : str
        What was done with the kernel's output, in words; empty if nothing.
    output : ndarray, shape (C, oH, oW)
    points : ndarray, shape (M, 2)
        x and y of each sample, or of each cell that was a maximum in channel 0; a cell's centre has whole numbers.
    """

    operator: str
    boxes: np.ndarray
    arguments: dict
    afterwards: str
    output: np.ndarray
    points: np.ndarray


def align(asked, box, aligned, *, size=None, scale=None, ratio=None, afterwards="", finish=None, x=None):
    """Call RoIAlign for one box, and finish its output by a function if there is one."""
    x = asked.x if x is None else x
    size, scale = asked.size if size is None else size, asked.scale if scale is None else scale
    ratio = asked.ratio if ratio is None else ratio
    rois = np.array([[0, *box]], x.dtype)
    y = backend.kernel("roi_align_forward")(x, rois, size, scale, ratio, aligned=aligned)[0]
    arguments = {"output_size": size, "spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
    places = sample_places(rois[0, 1:], size, scale, ratio, aligned)
    return Answer("roi_align", rois[:, 1:], arguments, afterwards, y if finish is None else finish(y), places)


def sample_places(box, size, scale, ratio, aligned):
    """Return x and y of the samples of RoIAlign: (M, 2); the kernels' rounding is not followed to the last digit."""
    axes = []
    for low, high, bins in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        start, extent, grid = _extent(float(low), float(high), bins, scale, ratio, aligned)
        count = bins * grid
        axes.append(start + (np.arange(count) + 0.5) * extent / max(count, 1))
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def _extent(low, high, bins, scale, ratio, aligned):
    """Return start, extent and samples per bin of a box along an axis."""
    extent = (high - low) * scale if aligned else max((high - low) * scale, 1.0)
    grid = ratio if ratio > 0 else max(math.ceil(extent / bins), 0)
    return low * scale - (0.5 if aligned else 0.0), extent, grid


# ---- RoIAlign as it is -----------------------------------------------------------------------------------------------


def not_aligned(asked):
    return align(asked, asked.roi, False)


def aligned(asked):
    return align(asked, asked.roi, True)


def plus_one(asked):
    """mmdetection 1.x: the last pixel belongs to the box; no half cell off, and no least size but 0."""
    low, high = asked.roi[:2], asked.roi[2:]
    half = 0.5 / asked.scale
    return align(asked, np.concatenate([low, np.maximum(high + 1, low)]) + half, True)


# ---- maxima of samples -----------------------------------------------------------------------------------------------


def _samples(asked, x=None):
    """Call RoIAlign aligned with a bin for every sample: (C, oH, samples, oW, samples)."""
    (oh, ow), box = asked.size, asked.roi.astype(asked.x.dtype)
    grids = [
        # in the type of the maps, as the kernels do it: another rounding may be another number of samples
        asked.ratio if asked.ratio > 0 else math.ceil(((high - low) * box.dtype.type(asked.scale)) / box.dtype.type(n))
        for low, high, n in ((box[1], box[3], oh), (box[0], box[2], ow))
    ]
    gy, gx = grids
    answer = align(asked, asked.roi, True, size=(oh * gy, ow * gx), ratio=1, x=x)
    return answer, answer.output.reshape(-1, oh, gy, ow, gx)


def largest_sample(asked):
    """mmcv: the largest interpolated sample of each bin."""
    answer, values = _samples(asked)
    words = f"the largest of the {values.shape[2]}x{values.shape[4]} samples of each bin"
    return answer._replace(afterwards=words, output=values.max(axis=(2, 4)))


def largest_part(asked):
    """ONNX: the largest part, weight times value, that one of the four cells has in a sample.

    A sample's cells lie in rows next to each other, one of them even, one odd, and so for columns: four copies of the
    maps, each with three of the four kinds of cells set to 0, give the four parts.
    """
    height, width = asked.x.shape[2:]
    rows, columns = np.arange(height)[:, None] % 2, np.arange(width) % 2
    kinds = [(rows == i) & (columns == j) for i in (0, 1) for j in (0, 1)]
    copies = np.concatenate([np.where(kind, asked.x, asked.x.dtype.type(0)) for kind in kinds], axis=1)
    answer, parts = _samples(asked, copies)
    parts = parts.reshape(4, -1, *parts.shape[1:])
    words = f"the largest of the four parts of the {parts.shape[3]}x{parts.shape[5]} samples of each bin"
    return answer._replace(afterwards=words, output=parts.max(axis=(0, 3, 5)))


# ---- crop_and_resize and its users -----------------------------------------------------------------------------------


def _crop(asked, corners, times=1, finish=None, afterwards=""):
    """Crop, with the first and the last sample on corners that are given in cells."""
    size = tuple(times * n for n in asked.size)
    rois = np.array([[0, *corners]], asked.x.dtype)
    y = crop_and_resize(asked.x, rois, size)[0]
    boxes = crop_boxes(rois, size)[:, 1:]
    words = "samples outside of the map, also those that RoIAlign moves onto it, are set to 0"
    return Answer(
        "roi_align",
        boxes,
        {"output_size": size, "spatial_scale": 1.0, "sampling_ratio": 1, "aligned": True},
        f"{words}, then {afterwards}" if afterwards else words,
        y if finish is None else finish(y),
        sample_places(boxes[0], size, 1.0, 1, True),
    )


def _blocks(y):
    """Return 2x2 blocks: (C, oH, 2, oW, 2)."""
    return y.reshape(len(y), y.shape[1] // 2, 2, y.shape[2] // 2, 2)


def crop(asked):
    """TensorFlow, with corners divided by the size of the picture; inside, they are multiplied by map size - 1."""
    height, width = asked.picture
    factors = (np.array(asked.x.shape[:1:-1]) - 1) / np.array([width, height])
    return _crop(asked, asked.roi * np.tile(factors, 2))


def crop_max(asked):
    """tf-faster-rcnn: divided by what is multiplied again; twice as many samples, and the largest of 2x2."""
    words = "the largest of each 2x2"
    return _crop(asked, asked.roi * asked.scale, 2, lambda y: _blocks(y).max(axis=(2, 4)), words)


def crop_matterport(asked):
    """Matterport: the last pixel off, then normalised by the picture's size - 1."""
    height, width = (pixels - 1 for pixels in asked.picture)
    factors = (np.array(asked.x.shape[:1:-1]) - 1) / np.array([width, height])
    return _crop(asked, (asked.roi - [0, 0, 1, 1]) * np.tile(factors, 2))


def crop_mean(asked):
    """tensorpack: a shift that puts samples where RoIAlign has them, on maps with a border, and the mean of 2x2."""
    return align(asked, asked.roi, True, ratio=2)


def spread(asked):
    """faster-rcnn.pytorch: samples from the first corner to one cell beyond the last, a row and a column more than
    bins, and the mean of neighbours."""
    size = tuple(n + 1 for n in asked.size)
    corners = asked.roi * asked.scale
    rois = np.array([[0, *corners[:2], *np.maximum(corners[2:] + 1, corners[:2])]], asked.x.dtype)

    def means(y):
        return (y[:, :-1, :-1] + y[:, 1:, :-1] + y[:, :-1, 1:] + y[:, 1:, 1:]) / asked.x.dtype.type(4)

    box, words = crop_boxes(rois, size)[0, 1:], "the mean of each 2x2 neighbours"
    return align(asked, box, True, size=size, scale=1.0, ratio=1, afterwards=words, finish=means)


# ---- RoIPool ---------------------------------------------------------------------------------------------------------


def _pool(asked, rois, size, scale):
    """Call RoIPool; return values, and where the maxima of channel 0 are."""
    values, argmax = backend.kernel("roi_pool_forward")(asked.x, rois, size, scale)
    found = argmax[:, 0][argmax[:, 0] >= 0]
    return values, np.stack([found % asked.x.shape[3], found // asked.x.shape[3]], axis=-1).astype(float)


def pooled(asked):
    rois = np.array([[0, *asked.roi]], asked.x.dtype)
    values, places = _pool(asked, rois, asked.size, asked.scale)
    arguments = {"output_size": asked.size, "spatial_scale": asked.scale}
    return Answer("roi_pool", rois[:, 1:], arguments, "", values[0], places)


def pooled_bins(asked):
    """mmcv: corners are not rounded, only the edges of bins; so each bin is a box of its own."""
    T = asked.x.dtype.type
    low, high = asked.roi[:2].astype(T) * T(asked.scale), (asked.roi[2:].astype(T) + T(1)) * T(asked.scale)
    edges = []
    for start, end, bins in zip(low, high, asked.size[::-1], strict=True):
        step, p = (end - start) / T(bins), np.arange(bins).astype(T)
        edges.append((np.floor(p * step + start), np.ceil((p + T(1)) * step + start) - 1))
    boxes = np.array(
        [[0, left, top, right, bottom] for top, bottom in zip(*edges[1], strict=True)
         for left, right in zip(*edges[0], strict=True)], asked.x.dtype,
    )  # fmt: skip
    if (high <= low).any():
        boxes[:, 1:] = -2  # a box off the map, of which no cell is taken
    values, places = _pool(asked, boxes, (1, 1), 1.0)
    output = values.reshape(*asked.size, -1).transpose(2, 0, 1)
    arguments: dict[str, Any] = {"output_size": (1, 1), "spatial_scale": 1.0}
    return Answer("roi_pool", boxes[:, 1:], arguments, "each box is a bin", output, places)
