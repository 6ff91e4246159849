"""An operator on arrays of one size: how each library calls it, and how its results are checked."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import numpy as np

import kernels
from benchmarks.entrants import OURS, library_of, on_gpu
from benchmarks.measure import Entrant

#: Above so many operations the textbook kernels would take seconds: they compute a part of the result only.
PROBED = 2e8


@dataclass(eq=False)
class Operator:
    """One operator on arrays of one size.

    Attributes
    ----------
    name : str
        Its name in the kernel contract, without ``_forward``.
    arrays : str
        The sizes, in a word.
    make : callable
        Takes a random generator; returns the inputs by name, ``dy`` among them where there is a backward.
    calls : dict of str to callable
        Per direction: takes a backend of ``kernels``, the inputs and what `save` returned; returns the result.
    save : callable
        Takes a backend and the inputs; returns what forward keeps for backward.
    theirs : callable or None
        The same with another library: takes it and its tensors; returns the output.
    gradients : dict of str to tuple of str
        Per backward direction: the inputs whose gradients it computes.
    library : {"torch", "torchvision"}
        Whose function `theirs` calls.
    reads : dict of str to tuple of str
        Per direction: the inputs that it has to read; if left out, all.
    flops : dict of str to int
        Per direction: multiplications and additions.
    probe : callable or None
        Takes a direction and the inputs; returns smaller inputs by name, and for each array that they give its index
        within the whole result.
    tolerance : float
        How far a result may be off, relative to the largest number.
    tolerances : dict of str to float
        The same per direction, where it is another.
    exact : bool
        Whether the result hangs on comparisons of rounded numbers: the reference is then computed in float32 too.
    atomic : tuple of str
        Directions that ``kernels.cuda`` has a second form of, which adds up in any order.
    """

    name: str
    arrays: str
    make: Callable
    calls: dict
    save: Callable = lambda k, a: None
    theirs: Callable | None = None
    gradients: dict = field(default_factory=lambda: {"backward": ("x",)})
    library: str = "torch"
    reads: dict = field(default_factory=dict)
    flops: dict = field(default_factory=dict)
    probe: Callable | None = None
    tolerance: float = 1e-5
    tolerances: dict = field(default_factory=dict)
    exact: bool = False
    atomic: tuple = ()

    checked = "textbook kernels"

    @property
    def directions(self):
        """Names of the directions."""
        return tuple(self.calls)

    def inputs(self):
        """Return the inputs, the same at every call; they are not to be written to."""
        return _inputs(self)

    def bytes_read(self, direction):
        """Return how many bytes of the inputs a direction reads."""
        return sum(a.nbytes for a in self.arrays_read(direction))

    def arrays_read(self, direction):
        """Return the inputs that a direction reads."""
        a = vars(self.inputs())
        names = self.reads.get(direction) or [n for n in a if direction in self.gradients or n != "dy"]
        return [a[name] for name in names]

    def allowed(self, direction):
        """Return how far a result may be off, relative to the largest number."""
        return self.tolerances.get(direction, self.tolerance)

    def libraries(self, direction):
        """Return the names of the other libraries that can compute this."""
        return () if self.theirs is None else (self.library, f"{self.library}.cuda")

    # ---- entrants ----------------------------------------------------------------------------------------------------

    def entrant(self, name, direction):
        """Return who calls this operator: one of `entrants.OURS`, or of `libraries`.

        On a GPU the inputs lie there beforehand, in several copies.
        """
        one = self._with_kernels if name in OURS else self._with_torch
        if not on_gpu(name):
            return one(name, direction)
        from benchmarks import gpu_clock

        several = [one(name, direction) for _ in range(gpu_clock.copies(self.bytes_read(direction)))]
        call = gpu_clock.taken_in_turn([entrant.call for entrant in several])
        return Entrant(call, several[0].collect, gpu_clock.Stopwatch(len(several)))

    def _with_kernels(self, name, direction):
        """Return the entrant of a backend of ``kernels``."""
        backend = kernels.get(library_of(name))
        to_device = backend.to_device if on_gpu(name) else lambda array: array
        to_host = backend.to_host if on_gpu(name) else lambda array: array
        backward = direction in self.gradients
        inputs = {name: array for name, array in vars(self.inputs()).items() if backward or name != "dy"}
        a = SimpleNamespace(**{name: to_device(array) for name, array in inputs.items()})
        saved = self.save(backend, a) if backward else None

        def call():
            return self.calls[direction](backend, a, saved)

        def call_atomic():
            before = backend.is_deterministic()
            backend.use_deterministic(False)
            try:
                return call()
            finally:
                backend.use_deterministic(before)

        collect = lambda result: [to_host(part) for part in parts(result)]  # noqa: E731
        return Entrant(call_atomic if name == "cuda.atomic" else call, collect)

    def _with_torch(self, name, direction):
        """Return PyTorch's entrant: a call without a tape, or the way back through one."""
        import torch

        library = importlib.import_module(library_of(name))
        device = "cuda" if on_gpu(name) else "cpu"
        inputs = vars(self.inputs()).items()
        t = SimpleNamespace(**{name: torch.from_numpy(array).to(device) for name, array in inputs})
        if direction not in self.gradients:

            def call():
                with torch.no_grad():
                    return self.theirs(library, t)
        else:
            wanted = [getattr(t, name).requires_grad_() for name in self.gradients[direction]]
            y = self.theirs(library, t)

            def call():
                return torch.autograd.grad(y, wanted, t.dy, retain_graph=True)

        return Entrant(call, lambda result: [part.detach().cpu().numpy() for part in parts(result)])

    # ---- checking ----------------------------------------------------------------------------------------------------

    def reference(self, direction):
        """Return a function that pairs parts of results with what textbook loops give, as `measure` takes it."""
        naive = kernels.get("naive")
        a, index = vars(self.inputs()), repeat(...)
        if self.probe is not None and self.flops[direction] > PROBED:
            a, index = self.probe(direction, SimpleNamespace(**a))
        if not self.exact:
            a = {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in a.items()}
        a = SimpleNamespace(**a)
        saved = self.save(naive, a) if direction in self.gradients else None
        wanted = parts(self.calls[direction](naive, a, saved))

        def pairs(results):
            return {
                name: [(found[where], part) for found, where, part in zip(result, index, wanted, strict=False)]
                for name, result in results.items()
            }

        return pairs


@lru_cache(maxsize=1)
def _inputs(operator):
    """Return the inputs of an operator: its directions and entrants come one after the other."""
    return SimpleNamespace(**operator.make(np.random.default_rng(0)))


def parts(result):
    """Return what a call computed as a list: None, which stands for a gradient that nobody wanted, is left out."""
    return [part for part in (result if isinstance(result, tuple | list) else [result]) if part is not None]


def normal(rng, *shape: Any):
    """Return normal numbers of some shape in float32."""
    return rng.standard_normal(shape, np.float32)


def text(*sizes):
    """Return sizes as a word, ``"10x8x224x224"``."""
    return "x".join(map(str, sizes))
