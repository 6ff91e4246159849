"""ReLU, sigmoid, softmax."""

from tinyseg.backend import kernel
from tinyseg.function import Function


class Relu(Function):
    def forward(self, x):
        y = kernel("relu_forward")(x)
        self.saved = (y,)
        return y

    def backward(self, dy):
        return kernel("relu_backward")(dy, *self.saved)


class Sigmoid(Function):
    def forward(self, x):
        y = kernel("sigmoid_forward")(x)
        self.saved = (y,)
        return y

    def backward(self, dy):
        return kernel("sigmoid_backward")(dy, *self.saved)


class Softmax(Function):
    def forward(self, x, *, dim):
        y = kernel("softmax_forward")(x, axis=dim)
        self.saved = (y,)
        self.dim = dim
        return y

    def backward(self, dy):
        return kernel("softmax_backward")(dy, *self.saved, axis=self.dim)


def relu(input):
    """Return ``max(0, x)`` of each value; NaN stays NaN.

    Parameters
    ----------
    input : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Same shape.
    """
    return Relu.apply(input)


def sigmoid(input):
    """Return ``1 / (1 + exp(-x))`` of each value.

    Parameters
    ----------
    input : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Same shape, values from 0 to 1.
    """
    return Sigmoid.apply(input)


def softmax(input, dim):
    """Return ``exp(x)`` scaled to sum 1 along an axis.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dim : int
        The axis of the classes.

    Returns
    -------
    Tensor
        Same shape, values from 0 to 1.

    Raises
    ------
    ValueError
        If there is no such axis.
    """
    return Softmax.apply(input, dim=dim)
