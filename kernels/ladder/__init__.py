"""One operator in rising versions, from the textbook loop to the kernel that is used: read them in order.

`rungs` gives the versions of an operator; ``python -m benchmarks ladder`` checks and times them. A ladder is a folder
with one file per rung and, in its ``__init__.py``, the list ``RUNGS``. Ladders for NVIDIA GPUs have names that end in
``_cuda``; their rungs need a GPU, or Numba's simulator.
"""

import importlib

from kernels.ladder.rung import Rung

__all__ = ["CUDA_OPERATORS", "OPERATORS", "Rung", "rungs"]

#: The operators that have a ladder for the processor, and for the GPU.
OPERATORS = ("conv2d", "roi_align")
CUDA_OPERATORS = ("matmul_cuda", "conv2d_cuda")


def rungs(operator):
    """Return the rungs of an operator's ladder, the slowest first.

    Parameters
    ----------
    operator : str
        One of ``OPERATORS`` or ``CUDA_OPERATORS``.

    Returns
    -------
    tuple of Rung
        All take the same arguments and give the same result, up to rounding.

    Raises
    ------
    ValueError
        If the operator has no ladder.
    """
    known = OPERATORS + CUDA_OPERATORS
    if operator not in known:
        raise ValueError(f"operator is {operator!r}; expected one of {', '.join(map(repr, known))}")
    return importlib.import_module(f"kernels.ladder.{operator}").RUNGS
