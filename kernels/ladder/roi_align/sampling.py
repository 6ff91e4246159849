"""Where RoIAlign takes its samples: what every rung of roi_align shares, since it is not what the ladder is about.

`kernels.naive.roi_align` says why it is so.
"""

import numpy as np

from kernels import checks, scalar_math
from kernels.jit import jit

sample = jit(scalar_math.roi_sample)

#: Samples of one bin along one axis. The rungs visit all of them, also those far outside the map.
MOST_SAMPLES = 100_000


def prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned):
    """Return checked arguments, and space for the output: ``y, x, rois, scale, ratio, aligned``."""
    x, rois, (oh, ow), *how = checks.roi_align(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    scale, ratio, _ = how
    if ratio <= 0:
        sizes = np.abs(rois[:, 3:].astype(np.float64) - rois[:, 1:3]) * float(scale) / [ow, oh]
        ratio = sizes.max(initial=0)
    if ratio > MOST_SAMPLES:
        raise ValueError(f"a bin has {ratio:g} samples along an axis; the ladder takes up to {MOST_SAMPLES}")
    return np.empty((len(rois), x.shape[1], oh, ow), x.dtype), x, rois, *how


@jit
def place_box(low, high, bins, spatial_scale, sampling_ratio, aligned):
    """Return where a box starts along one axis, the size of its bins, and the samples per bin."""
    T = type(low)
    offset = T(0.5 if aligned else 0.0)
    start = low * spatial_scale - offset
    size = high * spatial_scale - offset - start
    if not aligned:
        size = max(size, T(1))
    bin_size = size / T(bins)
    return start, bin_size, sampling_ratio if sampling_ratio > 0 else int(np.ceil(bin_size))


@jit
def on_map(place, size):
    """Return whether a sample counts: it may lie up to one cell outside of a map of ``size`` cells."""
    return -1 <= place <= size


@jit
def neighbours(place, size):
    """Return the two cells around a sample, and the weights of both."""
    T = type(place)
    place = min(max(place, T(0)), T(size - 1))
    low = int(place)
    weight = place - T(low)
    return low, min(low + 1, size - 1), T(1) - weight, weight
