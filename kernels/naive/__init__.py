"""Textbook loops: the definition of every operator, to be read beside its formula.

With ``NUMBA_DISABLE_JIT=1`` they run as plain Python, so that a debugger steps through them.
"""

from kernels import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
