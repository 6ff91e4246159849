"""Losses. The target, and the weights, are constants: no gradient flows to them."""

import numpy as np

from tinyseg.backend import is_on_device, kernel
from tinyseg.function import Function
from tinyseg.tensor import Tensor


class Loss(Function):
    """What the losses share: the names of the kernels, and their arguments after the input."""

    kernels = ""

    def forward(self, input, target, *weights, **parameters):
        self.saved = (input, target, *weights)
        self.parameters = parameters
        return kernel(f"{self.kernels}_forward")(input, target, *weights, **parameters)

    def backward(self, dy):
        dx = kernel(f"{self.kernels}_backward")(dy, *self.saved, **self.parameters)
        return dx, *(None for _ in self.saved[1:])


class BinaryCrossEntropy(Loss):
    kernels = "binary_cross_entropy"


class BinaryCrossEntropyWithLogits(Loss):
    kernels = "binary_cross_entropy_with_logits"


class CrossEntropy(Loss):
    kernels = "cross_entropy"


class SmoothL1Loss(Loss):
    kernels = "smooth_l1"


class SigmoidFocalLoss(Loss):
    kernels = "sigmoid_focal"


class DiceLoss(Loss):
    kernels = "dice"


def _constant(name, value, dtype=None):
    """Return a target or weight as a tensor, of type ``dtype`` if given."""
    if value is None:
        return None
    if getattr(value, "requires_grad", False):
        raise ValueError(f"{name} requires gradients, but a loss has none for it; pass {name}.detach()")
    if not isinstance(value, Tensor):
        array = value if is_on_device(value) else np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} has dtype {array.dtype}; expected numbers")
        value = Tensor(array)
    return value.to(dtype=dtype)


def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """Return ``-(t log p + (1 - t) log(1 - p))``, each logarithm at least -100, as PyTorch does.

    Parameters
    ----------
    input : Tensor
        Probabilities from 0 to 1, any shape.
    target : Tensor or numpy.ndarray
        Same shape, values from 0 to 1.
    weight : Tensor or numpy.ndarray, optional
        Factors that broadcast to the shape of ``input``.
    reduction : {"mean", "sum", "none"}
        What to make of the values.

    Returns
    -------
    Tensor
        A single value, or the shape of ``input`` with ``"none"``.

    Raises
    ------
    ValueError
        If shapes or values do not fit, or the target requires gradients.
    """
    constants = _constant("target", target, input.dtype), _constant("weight", weight, input.dtype)
    return BinaryCrossEntropy.apply(input, *constants, reduction=reduction)


def binary_cross_entropy_with_logits(input, target, weight=None, *, reduction="mean", pos_weight=None):
    """Return the binary cross entropy of ``sigmoid(input)``, without overflow.

    Parameters
    ----------
    input : Tensor
        Scores, any shape.
    target : Tensor or numpy.ndarray
        Same shape, values from 0 to 1.
    weight : Tensor or numpy.ndarray, optional
        Factors that broadcast to the shape of ``input``.
    reduction : {"mean", "sum", "none"}
        What to make of the values.
    pos_weight : Tensor or numpy.ndarray, optional
        Factors of the positive part ``t log p``, which broadcast to the shape of ``input``.

    Returns
    -------
    Tensor
        A single value, or the shape of ``input`` with ``"none"``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the target requires gradients.
    """
    constants = (
        _constant("target", target, input.dtype),
        _constant("weight", weight, input.dtype),
        _constant("pos_weight", pos_weight, input.dtype),
    )
    return BinaryCrossEntropyWithLogits.apply(input, *constants, reduction=reduction)


def cross_entropy(input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Return minus the logarithm of the softmax probability of the true class.

    Parameters
    ----------
    input : Tensor
        Scores ``(N, C)`` or ``(N, C, ...)``, C classes.
    target : Tensor or numpy.ndarray
        Integers ``(N,)`` or ``(N, ...)``: classes from 0 to C - 1, or ``ignore_index``.
    weight : Tensor or numpy.ndarray, optional
        ``(C,)``, a factor per class. The mean divides by the sum of the factors.
    ignore_index : int
        Class that does not count.
    reduction : {"mean", "sum", "none"}
        What to make of the values. The mean over nothing is 0.
    label_smoothing : float
        Share of the target, from 0 to 1, that is spread over all classes.

    Returns
    -------
    Tensor
        A single value, or the shape of ``target`` with ``"none"``.

    Raises
    ------
    TypeError, ValueError
        If types, shapes or classes do not fit.
    """
    return CrossEntropy.apply(
        input,
        _constant("target", target),
        _constant("weight", weight, input.dtype),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """Return ``0.5 d^2 / beta`` for differences d below beta, else ``|d| - 0.5 beta`` (Girshick, Fast R-CNN, 2015).

    Parameters
    ----------
    input : Tensor
        Any shape.
    target : Tensor or numpy.ndarray
        Same shape.
    reduction : {"mean", "sum", "none"}
        What to make of the values.
    beta : float
        Where the parabola meets the line; 0 gives the absolute difference.

    Returns
    -------
    Tensor
        A single value, or the shape of ``input`` with ``"none"``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the target requires gradients.
    """
    return SmoothL1Loss.apply(input, _constant("target", target, input.dtype), beta=beta, reduction=reduction)


def sigmoid_focal_loss(inputs, targets, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the focal loss (Lin et al., 2017), with torchvision's arguments.

    Parameters
    ----------
    inputs : Tensor
        Scores, any shape.
    targets : Tensor or numpy.ndarray
        Same shape, values from 0 to 1.
    alpha : float
        Weight of the positive examples, from 0 to 1; negative for none.
    gamma : float
        How strongly well-classified examples are discounted.
    reduction : {"none", "mean", "sum"}
        What to make of the values.

    Returns
    -------
    Tensor
        The shape of ``inputs``, or a single value with ``"mean"`` or ``"sum"``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the targets require gradients.
    """
    targets = _constant("targets", targets, inputs.dtype)
    return SigmoidFocalLoss.apply(inputs, targets, alpha=alpha, gamma=gamma, reduction=reduction)


def dice_loss(input, target, smooth=1.0, *, per_sample=False, reduction="mean"):
    """Return ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` with ``p = sigmoid(input)`` (Milletari, 2016).

    Parameters
    ----------
    input : Tensor
        Scores, any shape; ``(N, ...)`` with ``per_sample``.
    target : Tensor or numpy.ndarray
        Same shape, values from 0 to 1.
    smooth : float
        Added above and below the bar: what makes the loss of two empty masks 0.
    per_sample : bool
        One value per picture, then reduced; otherwise one over the whole batch.
    reduction : {"mean", "sum", "none"}
        What to make of the values of the pictures.

    Returns
    -------
    Tensor
        A single value, or ``(N,)`` with ``per_sample`` and ``"none"``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the target requires gradients.
    """
    target = _constant("target", target, input.dtype)
    return DiceLoss.apply(input, target, smooth=smooth, per_sample=per_sample, reduction=reduction)
