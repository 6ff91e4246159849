"""Steps of optimisers over all the parameters of a network."""

import numpy as np

import tinyseg
from benchmarks.entrants import OURS, on_gpu
from benchmarks.measure import Entrant


class OptimiserStep:
    """One step of Adam or of SGD with momentum, on parameters of given shapes.

    Parameters
    ----------
    name : {"adam", "sgd"}
        Which one.
    arrays : str
        Whose parameters, in a word.
    shapes : callable
        Returns the shapes.
    """

    directions = ("step",)
    flops: dict = {}
    tolerance = 1e-5
    checked = "NumPy in float64"

    def __init__(self, name, arrays, shapes):
        self.name, self.arrays, self._shapes = name, arrays, shapes

    def _values(self):
        """Return first values and gradients, each a list of arrays."""
        rng = np.random.default_rng(0)
        return [[rng.standard_normal(shape, np.float32) for shape in self._shapes()] for _ in range(2)]

    def allowed(self, direction):
        """Return how far a result may be off, relative to the largest number."""
        return self.tolerance

    def bytes_read(self, direction):
        """Return the bytes that cross memory: all but the parameters written, which count as the result."""
        size = sum(4 * int(np.prod(shape)) for shape in self._shapes())
        # read: parameter, gradient and the running means; written beside the parameter: the running means
        return size * (6 if self.name == "adam" else 4)

    def libraries(self, direction):
        """Return the names of the other libraries that can compute this."""
        return ("torch", "torch.cuda")

    def entrant(self, name, direction):
        """Return who takes this step: a backend, or PyTorch."""
        values, gradients = self._values()
        device, watch = "cpu", None
        if on_gpu(name):
            from benchmarks.gpu_clock import Stopwatch

            device, watch = "cuda", Stopwatch()
        if name in OURS:
            with tinyseg.use_backend(name):  # new tensors lie on its device
                parameters = [tinyseg.Tensor(value, requires_grad=True) for value in values]
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = tinyseg.Tensor(gradient)
                optimiser = self._make(tinyseg.optim, parameters)

            def call():
                with tinyseg.use_backend(name):
                    optimiser.step()

            return Entrant(call, lambda _: [parameter.to("cpu").numpy().copy() for parameter in parameters], watch)
        import torch

        parameters = [torch.from_numpy(value).to(device).requires_grad_() for value in values]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient).to(device)
        optimiser = self._make(torch.optim, parameters)
        collect = lambda _: [parameter.detach().cpu().numpy().copy() for parameter in parameters]  # noqa: E731
        return Entrant(optimiser.step, collect, watch)

    def _make(self, optim, parameters):
        return optim.Adam(parameters, 1e-3) if self.name == "adam" else optim.SGD(parameters, 0.01, momentum=0.9)

    def reference(self, direction):
        """Return a function that pairs results with the formulas of a first step."""
        values, gradients = ([array.astype(np.float64) for array in arrays] for arrays in self._values())
        if self.name == "adam":  # the corrected means of one gradient are the gradient and its square
            steps = [1e-3 * gradient / (np.abs(gradient) + 1e-8) for gradient in gradients]
        else:
            steps = [0.01 * gradient for gradient in gradients]
        wanted = [value - step for value, step in zip(values, steps, strict=True)]
        return lambda results: {name: list(zip(found, wanted, strict=True)) for name, found in results.items()}
