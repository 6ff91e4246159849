"""Image segmentation from scratch in NumPy and Numba, for people who want to see inside."""

from importlib import import_module as _import_module

from tinyseg import models, nn, ops, optim, random
from tinyseg.backend import (
    current_backend,
    get_num_threads,
    peak_memory,
    release_memory,
    set_num_threads,
    use_backend,
    use_winograd,
    uses_winograd,
)
from tinyseg.random import manual_seed
from tinyseg.tensor import Tensor, is_grad_enabled, no_grad

__all__ = [
    "Tensor",
    "current_backend",
    "get_num_threads",
    "is_grad_enabled",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "peak_memory",
    "random",
    "release_memory",
    "set_num_threads",
    "use_backend",
    "use_winograd",
    "uses_winograd",
]

__version__ = "0.1.0"

# What takes long to import (Matplotlib, tqdm, ...) comes in when it is first used.
_LAZY = ("boxes", "cli", "data", "draw", "evaluation", "explain", "lessons", "training", "weights")


def __getattr__(name):
    if name in _LAZY:
        return _import_module(f"tinyseg.{name}")
    raise AttributeError(f"module 'tinyseg' has no attribute {name!r}")
