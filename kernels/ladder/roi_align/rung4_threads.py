"""Rung 4 of roi_align: threads."""

from numba import prange

from kernels.cpu.channels_last import channels_last
from kernels.jit import jit
from kernels.ladder.roi_align.rung3_channels_last import pool_box
from kernels.ladder.roi_align.sampling import prepare


def roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Average with one task per box, shared out to the threads.

    Changes: ``prange`` in place of ``range``; the map is turned by several threads too.

    Why: boxes overlap on the map, but they only read it. Each writes to an output of its own. (In the gradient it is
    the other way round: boxes add to the same cells, and the tasks must be cut differently.)

    Measured: nearly as many times faster as there are cores, where these have nothing else to do. Parameters: see
    `kernels.ladder.roi_align`.
    """
    y, x, *arguments = prepare(x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    n, c, h, w = x.shape
    _threads_kernel(y, channels_last(x).reshape(n, h, w, c), *arguments)
    return y


@jit(parallel=True)
def _threads_kernel(y, x, rois, spatial_scale, sampling_ratio, aligned):
    for k in prange(y.shape[0]):
        pool_box(y[k], x, rois[k], spatial_scale, sampling_ratio, aligned)
