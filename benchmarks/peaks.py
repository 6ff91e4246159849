"""What this machine can do at best, and the least time that follows from it: see `kernels.cpu.peaks`."""

from kernels.cpu.peaks import bound, peaks

__all__ = ["bound", "peaks"]
