"""Which vectors a CPU has, and the register tiles that fit them."""

import platform
from typing import NamedTuple

import numpy as np
from llvmlite import binding
from numba import config


class Tile(NamedTuple):
    """Accumulators of a kernel: output channels by vectors of pixels (or by taps, in the weight gradient)."""

    rows: int
    columns: int


class Tiling(NamedTuple):
    """Bytes of a vector register, and the tile of each kernel."""

    vector_bytes: int
    wide: Tile  # multiply_wide
    narrow: Tile  # multiply_narrow, for few output channels
    dot: Tile  # dot_tile
    panel: Tile  # multiply_panel: pixels by vectors of output channels


def _features():
    """Return the names of the vector extensions that Numba compiles for."""
    chosen = vars(config)["CPU_FEATURES"]  # environment variable NUMBA_CPU_FEATURES
    if chosen is not None:
        return {name[1:] for name in chosen.split(",") if name.startswith("+")}
    return {name for name, present in binding.get_host_cpu_features().items() if present}


def choose_tiling(features, machine):
    """Return the tiling for a CPU with these ``features``: accumulators and operands, but nothing to spill.

    Any tiling is right on any CPU, since LLVM splits vectors that are too long; the choice only sets the speed.
    """
    if "avx512f" in features:
        return Tiling(64, Tile(8, 3), Tile(2, 6), Tile(4, 4), Tile(6, 4))  # 32 registers of 64 bytes
    if machine.lower() in ("aarch64", "arm64"):
        return Tiling(16, Tile(8, 3), Tile(2, 6), Tile(4, 6), Tile(6, 4))  # 32 registers of 16 bytes
    if "avx" in features:
        return Tiling(32, Tile(4, 3), Tile(2, 4), Tile(2, 6), Tile(6, 2))  # 16 registers of 32 bytes
    return Tiling(16, Tile(4, 3), Tile(2, 4), Tile(2, 6), Tile(6, 2))


TILING = choose_tiling(_features(), platform.machine())
VECTOR_BYTES, WIDE, NARROW, DOT, PANEL = TILING

#: What a step of the narrow tile costs more than one of the wide tile, per product: it loads more.
_NARROW_COST = 1.25


def multiply_tiling(channels):
    """Return the better tile for ``channels`` output channels: rows that are too many are computed in vain."""
    rows = {tile: -(-channels // tile.rows) * tile.rows for tile in (WIDE, NARROW)}
    return NARROW if rows[NARROW] * _NARROW_COST < rows[WIDE] else WIDE


def lanes(dtype):
    """Return how many numbers of type ``dtype`` one vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def dot_size(dtype):
    """Return how many numbers ``dot_tile`` adds to: its sums, filled up to whole vectors."""
    return -(-DOT.rows * DOT.columns // lanes(dtype)) * lanes(dtype)


def panel_width(dtype):
    """Return how many output channels ``multiply_panel`` computes at once."""
    return PANEL.columns * lanes(dtype)
