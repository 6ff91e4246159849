"""The ladder of roi_align: one file per rung, ``rung1_textbook.py`` and on, each short enough to read in one look.

Every rung is a function ``roi_align_forward(x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned)``:
parameters, result and errors are those of `kernels.naive.roi_align.roi_align_forward`. The rungs visit every sample,
though, so they refuse boxes with more than 100,000 of them along an axis of a bin (ValueError). To see what a rung
changes, compare its file with the one before. ``sampling.py`` holds what all of them share: where samples lie.

Rates count a multiplication and an addition for each of the four neighbours of every sample. They are per core, of a
server CPU with AVX-512, on maps of 256 channels: orders of magnitude. ``python -m benchmarks ladder roi_align``
measures yours.
"""

from kernels.cpu import roi_align_forward
from kernels.ladder.roi_align import (
    rung1_textbook,
    rung2_taps,
    rung3_channels_last,
    rung4_threads,
    rung5_registers,
    rung6_merged,
)
from kernels.ladder.rung import Rung

RUNGS = (
    Rung("textbook", "each output by itself", rung1_textbook.roi_align_forward),
    Rung("taps", "cells and weights once per box", rung2_taps.roi_align_forward),
    Rung("channels_last", "innermost loop along the channels", rung3_channels_last.roi_align_forward),
    Rung("threads", "boxes shared out to threads", rung4_threads.roi_align_forward),
    Rung("registers", "sums in vector registers", rung5_registers.roi_align_forward, False),
    Rung("merged", "taps of the same cell added up", rung6_merged.roi_align_forward, False),
    Rung("final", "kernels.cpu: tuned", roi_align_forward, False),
)
