"""Pooling of objects from the maps of a backbone, each from the level that suits its size."""

import math

import numpy as np

from tinyseg import boxes as box_tools
from tinyseg import nn, ops
from tinyseg.watching import tell


class MultiScaleRoIPooling(nn.Module):
    """RoIAlign or RoIPool on one map or on a feature pyramid.

    Parameters
    ----------
    featmap_names : sequence of str
        Which of the maps to pool from, the finest first.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    sampling_ratio : int
        Samples of a bin along each axis, for RoIAlign; 0 or less for as many as the bin has cells.
    roi_op : {"align", "pool"}
        `tinyseg.ops.roi_align` or `tinyseg.ops.roi_pool`.
    aligned : bool
        For RoIAlign: whether half a cell is subtracted, as in detectron2. torchvision does not.
    canonical_scale, canonical_level : int
        An object of this size, in pixels, is pooled from the level of this number: see `tinyseg.boxes.level_of`.

    Raises
    ------
    ValueError
        If ``roi_op`` is another.

    Notes
    -----
    torchvision calls it ``MultiScaleRoIAlign``. As there, the stride of a map is taken to be a power of two: the one
    nearest to the ratio of the heights of the highest picture and the map. torchvision keeps the strides of the first
    call, here every call finds its own.
    """

    def __init__(
        self,
        featmap_names,
        output_size,
        sampling_ratio=2,
        *,
        roi_op="align",
        aligned=False,
        canonical_scale=224,
        canonical_level=4,
    ):
        super().__init__()
        if roi_op not in ("align", "pool"):
            raise ValueError(f"roi_op is {roi_op!r}; expected 'align' or 'pool'")
        self.featmap_names = tuple(featmap_names)
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.sampling_ratio, self.roi_op, self.aligned = sampling_ratio, roi_op, aligned
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(self, features, boxes, image_sizes):
        """Pool boxes.

        Parameters
        ----------
        features : dict of Tensor
            Maps ``(N, C, h, w)``, of which those in ``featmap_names`` are used.
        boxes : list of ndarray
            ``(K, 4)`` for each picture, in its pixels.
        image_sizes : list of (int, int)
            Height and width of each picture.

        Returns
        -------
        Tensor
            ``(R, C, oH, oW)`` for all boxes, one picture after the other.
        """
        maps = [x for name, x in features.items() if name in self.featmap_names]
        if not maps:
            raise ValueError(f"features has the maps {list(features)}; expected some of {self.featmap_names}")
        height = max(size[0] for size in image_sizes)
        strides = [round(math.log2(height / x.shape[2])) for x in maps]  # as powers of two
        scales, levels = [2.0**-stride for stride in strides], self._levels(boxes, strides)
        tell("pooling", levels=levels, scales=scales)
        return ops.multi_scale_roi(
            maps,
            boxes,
            self.output_size,
            scales,
            levels,
            roi_op=self.roi_op,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )

    def _levels(self, boxes, strides):
        """Return which of the maps each box is pooled from."""
        rows = np.concatenate(boxes)
        if len(strides) == 1:
            return np.zeros(len(rows), np.int64)
        lowest, highest = strides[0], strides[-1]
        return box_tools.level_of(rows, lowest, highest, self.canonical_scale, self.canonical_level) - lowest

    def extra_repr(self):
        """Return the settings."""
        text = f"featmap_names={self.featmap_names}, output_size={self.output_size}, roi_op={self.roi_op!r}"
        if self.roi_op == "align":
            text += f", sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        return text
