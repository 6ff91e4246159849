"""Binary cross entropy, on probabilities and on scores. A thread takes one element after the other.

The formulas are in ``kernels/naive/binary_cross_entropy.py``; what the reductions and the gradient share with other
losses is in ``reduction``. Weights that have to be repeated are laid out in full before.
"""

import math

from kernels import checks
from kernels.cuda.add import expanded
from kernels.cuda.array import to_device
from kernels.cuda.device import device_function
from kernels.cuda.reduction import ElementwiseLoss
from kernels.cuda.targets import probabilities


def binary_cross_entropy_forward(p, target, weight=None, reduction="mean"):
    """Return the binary cross entropy of probabilities.

    Parameters
    ----------
    p : ndarray or DeviceArray
        Probabilities, any shape, float32 or float64.
    target : ndarray or DeviceArray
        Of p's shape and type, from 0 to 1.
    weight : ndarray or DeviceArray, optional
        Factor of each loss; broadcasts to p's shape.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum. A mean divides by the number of elements, not by the weights.

    Returns
    -------
    DeviceArray
        Of p's shape with "none", otherwise with no axes; of p's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not p's.
    ValueError
        If shapes do not fit each other, or p or target leaves 0 to 1.

    Notes
    -----
    Follows ``torch.nn.functional.binary_cross_entropy``.
    """
    p, target = probabilities(p, target)
    weights = _weight("weight", weight, p), None
    return _probability_loss.forward(checks.reduction(reduction), p, target, weights)


def binary_cross_entropy_backward(dy, p, target, weight=None, reduction="mean"):
    """Return the gradient of `binary_cross_entropy_forward` with respect to the probabilities.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    p, target, weight, reduction
        As given to `binary_cross_entropy_forward`.

    Returns
    -------
    DeviceArray
        Of p's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_forward`, and if dy has not the shape of the loss.
    """
    p, target = probabilities(p, target)
    weights = _weight("weight", weight, p), None
    return _probability_loss.backward(checks.loss_gradient(dy, p, reduction), reduction, p, target, weights)


def binary_cross_entropy_with_logits_forward(x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the binary cross entropy of scores.

    Parameters
    ----------
    x : ndarray or DeviceArray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray or DeviceArray
        Of x's shape and type, from 0 to 1.
    weight : ndarray or DeviceArray, optional
        Factor of each loss; broadcasts to x's shape.
    pos_weight : ndarray or DeviceArray, optional
        Factor of the positive part of each loss; broadcasts to x's shape.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum. A mean divides by the number of elements, not by the weights.

    Returns
    -------
    DeviceArray
        Of x's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes do not fit each other.

    Notes
    -----
    Follows ``torch.nn.functional.binary_cross_entropy_with_logits``.
    """
    x, target = checks.loss_pair(x, target)
    weights = _weight("weight", weight, x), _weight("pos_weight", pos_weight, x)
    return _logits_loss.forward(checks.reduction(reduction), x, target, weights)


def binary_cross_entropy_with_logits_backward(dy, x, target, weight=None, pos_weight=None, reduction="mean"):
    """Return the gradient of `binary_cross_entropy_with_logits_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    x, target, weight, pos_weight, reduction
        As given to `binary_cross_entropy_with_logits_forward`.

    Returns
    -------
    DeviceArray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    weights = _weight("weight", weight, x), _weight("pos_weight", pos_weight, x)
    return _logits_loss.backward(checks.loss_gradient(dy, x, reduction), reduction, x, target, weights)


def _weight(name, weight, x):
    """Return a weight on the device, in x's shape; or None."""
    if weight is None:
        return None
    weight = to_device(checks.array(name, weight, None, x.dtype))  # repeated there, not on the way
    return expanded(checks.broadcast_to(name, weight, x), x.shape)


def _clamped_log(T):
    @device_function
    def clamped_log(value):
        """Return the logarithm, at least -100; NaN stays NaN."""
        if value <= T(0):
            return T(-100)
        logarithm = T(math.log(value))
        if logarithm < T(-100):
            return T(-100)
        return logarithm

    return clamped_log


def _probability_value(T):
    clamped_log = _clamped_log(T)

    @device_function
    def value(p, t, w, pos, a, b):
        return -w * (t * clamped_log(p) + (T(1) - t) * clamped_log(T(1) - p))

    return value


def _probability_slope(T):
    @device_function
    def slope(p, t, w, pos, a, b):
        denominator = p * (T(1) - p)
        if denominator < T(1e-12):
            denominator = T(1e-12)
        return w * (p - t) / denominator

    return slope


def _logits_value(T):
    @device_function
    def value(x, t, w, pos, a, b):
        positive = T(1) + (pos - T(1)) * t
        log_term = T(math.log1p(math.exp(-abs(x))))
        if x < T(0):
            log_term -= x
        return w * ((T(1) - t) * x + positive * log_term)

    return value


def _logits_slope(T):
    @device_function
    def slope(x, t, w, pos, a, b):
        positive = T(1) + (pos - T(1)) * t
        small = T(math.exp(-abs(x)))
        above = T(1) if x < T(0) else small
        return w * ((T(1) - t) - positive * (above / (T(1) + small)))  # above / (1 + small) is 1 - p

    return slope


_probability_loss = ElementwiseLoss("binary_cross_entropy.probability", _probability_value, _probability_slope)
_logits_loss = ElementwiseLoss("binary_cross_entropy.logits", _logits_value, _logits_slope)
