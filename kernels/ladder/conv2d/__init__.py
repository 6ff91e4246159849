"""The ladder of conv2d: one file per rung, ``rung1_textbook.py`` and on, each short enough to read in one look.

Every rung is a function ``conv2d_forward(x, weight, bias=None, stride=1, padding=0)``: parameters, result and errors
are those of `kernels.naive.conv2d.conv2d_forward`, without dilation and groups. To see what a rung changes, compare its
file with the one before. ``arguments.py`` holds what all of them begin with.

Rates are per core, of a server CPU with AVX-512 (3.7 GHz, 16 multiply-adds a cycle: at most 118 GFLOP/s), on layers of
64 to 128 channels: orders of magnitude. ``python -m benchmarks ladder conv2d`` measures yours.
"""

from kernels.cpu import conv2d_forward
from kernels.ladder.conv2d import (
    rung1_textbook,
    rung2_order,
    rung3_threads,
    rung4_reuse,
    rung5_tile,
    rung6_winograd,
)
from kernels.ladder.rung import Rung

RUNGS = (
    Rung("textbook", "one loop per index of the formula", rung1_textbook.conv2d_forward),
    Rung("order", "innermost loop along a row, no test for the edge", rung2_order.conv2d_forward),
    Rung("threads", "output planes shared out to threads", rung3_threads.conv2d_forward),
    Rung("reuse", "four output channels and three taps per pass", rung4_reuse.conv2d_forward),
    Rung("tile", "sums in vector registers, packed rows", rung5_tile.conv2d_forward, False, (1, 1)),
    Rung("winograd", "a quarter of the multiplications", rung6_winograd.conv2d_forward, False, (1, 1), (3, 3)),
    Rung("final", "kernels.cpu: the best of these by shape, tuned", conv2d_forward, False),
)
