"""Gradients by finite differences, through the tape: the independent answer for every operator's backward."""

import numpy as np

from tinyseg import Tensor


def check_gradients(function, *arrays, step=1e-6, bound=2e-8):
    """Compare the tape's gradients with central differences, over every element of every array.

    Parameters
    ----------
    function : callable
        Takes as many tensors as there are arrays and returns a tensor.
    *arrays : ndarray
        float64 inputs, away from ties and kinks.
    step : float
        Half the distance of the two evaluations. Their rounding, 1e-16 / step, and the third derivative times its
        square are what ``bound`` allows for.
    bound : float
        Largest difference, relative to the largest gradient or 1.
    """
    tensors = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    y = function(*tensors)
    upstream = np.random.default_rng(7).normal(size=y.shape)
    y.backward(upstream)

    def loss():
        # sums of differences, not differences of sums: what does not change cancels exactly
        return function(*(Tensor(tensor.array) for tensor in tensors)).numpy().copy()

    for number, tensor in enumerate(tensors):
        expected = np.zeros(tensor.shape)
        for index in np.ndindex(*tensor.shape):
            before = tensor.array[index]
            tensor.array[index] = before + step
            above = loss()
            tensor.array[index] = before - step
            expected[index] = ((above - loss()) * upstream).sum() / (2 * step)
            tensor.array[index] = before
        assert tensor.grad is not None, f"input {number} got no gradient"
        scale = max(1.0, np.abs(expected).max(initial=0))
        worst = np.abs(tensor.grad.numpy() - expected).max(initial=0)
        assert worst <= bound * scale, f"gradient of input {number} differs by {worst:.3g} of {scale:.3g}"
