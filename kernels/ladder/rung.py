"""What a ladder is made of."""

from collections.abc import Callable
from typing import NamedTuple


class Rung(NamedTuple):
    """One version of an operator.

    Every rung of a ladder takes the same arguments and gives the same result, up to rounding. Its function's docstring
    says what it changes against the rung before, why that should help, and what was measured, or for GPUs counted.
    """

    name: str
    change: str  # against the rung before, in a few words
    function: Callable
    #: Whether it also runs without the JIT (``NUMBA_DISABLE_JIT=1``), so that a debugger steps through it. A rung
    #: that writes vector instructions by hand does not: Python has none.
    steppable: bool = True
    #: Which strides it can do; None for any. Kernels (kH, kW) that it can do; None for any.
    stride: tuple | None = None
    kernel: tuple | None = None

    def takes(self, stride=(1, 1), kernel=(3, 3)):
        """Return whether the rung can do a convolution of that stride and kernel."""
        return self.stride in (None, tuple(stride)) and self.kernel in (None, tuple(kernel))
