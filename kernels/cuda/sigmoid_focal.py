"""Focal loss: binary cross entropy that counts what is easy for less. A thread takes one element after the other.

The formulas are in ``kernels/naive/sigmoid_focal.py``; what the reductions and the gradient share with other losses is
in ``reduction``. Both p and 1 - p follow from the same exp(-|x|), so neither is a difference of nearly equal numbers.
"""

import math

from kernels import checks
from kernels.cuda.device import device_function
from kernels.cuda.reduction import ElementwiseLoss


def sigmoid_focal_forward(x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the focal loss of scores.

    Parameters
    ----------
    x : ndarray or DeviceArray
        Scores before the sigmoid, any shape, float32 or float64.
    target : ndarray or DeviceArray
        Of x's shape and type, from 0 to 1.
    alpha : float
        Weight of positives against negatives, up to 1; a negative number weighs nothing.
    gamma : float
        How fast what is easy fades; 0 is plain binary cross entropy.
    reduction : {"none", "mean", "sum"}
        One loss per element, or their mean or sum.

    Returns
    -------
    DeviceArray
        Of x's shape with "none", otherwise with no axes; of x's type.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or target not x's.
    ValueError
        If the shapes differ, alpha is above 1, or gamma negative.

    Notes
    -----
    Follows ``torchvision.ops.sigmoid_focal_loss``.
    """
    x, target, alpha, gamma = _checked(x, target, alpha, gamma)
    return _loss.forward(checks.reduction(reduction), x, target, a=alpha, b=gamma)


def sigmoid_focal_backward(dy, x, target, alpha=0.25, gamma=2.0, reduction="none"):
    """Return the gradient of `sigmoid_focal_forward` with respect to the scores.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    x, target, alpha, gamma, reduction
        As given to `sigmoid_focal_forward`.

    Returns
    -------
    DeviceArray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_focal_forward`, and if dy has not the shape of the loss.
    """
    x, target, alpha, gamma = _checked(x, target, alpha, gamma)
    return _loss.backward(checks.loss_gradient(dy, x, reduction), reduction, x, target, a=alpha, b=gamma)


def _checked(x, target, alpha, gamma):
    x, target = checks.loss_pair(x, target)
    return x, target, checks.number("alpha", alpha, None, 1), checks.number("gamma", gamma, 0)


def _parts(T):
    """Return the function that gives p, 1 - p, 1 - p_t, the cross entropy and alpha_t."""

    @device_function
    def parts(x, t, alpha):
        small = T(math.exp(-abs(x)))
        large_share, small_share = T(1) / (T(1) + small), small / (T(1) + small)
        entropy = (T(1) - t) * x + T(math.log1p(small))
        p, one_minus_p = large_share, small_share
        if x < T(0):
            p, one_minus_p = small_share, large_share
            entropy -= x
        one_minus_p_t = one_minus_p * t + p * (T(1) - t)
        alpha_t = T(1)
        if alpha >= T(0):
            alpha_t = alpha * t + (T(1) - alpha) * (T(1) - t)
        return p, one_minus_p, one_minus_p_t, entropy, alpha_t

    return parts


def _value(T):
    parts = _parts(T)

    @device_function
    def value(x, t, w, pos, alpha, gamma):
        _, _, one_minus_p_t, entropy, alpha_t = parts(x, t, alpha)
        return alpha_t * one_minus_p_t**gamma * entropy

    return value


def _slope(T):
    parts = _parts(T)

    @device_function
    def slope(x, t, w, pos, alpha, gamma):
        p, one_minus_p, one_minus_p_t, entropy, alpha_t = parts(x, t, alpha)
        result = one_minus_p_t**gamma * (p - t)
        if gamma > T(0) and one_minus_p_t != T(0):  # else the term vanishes, but 0 to a negative power is infinite
            power = one_minus_p_t ** (gamma - T(1))
            result -= gamma * power * (T(2) * t - T(1)) * p * one_minus_p * entropy
        return alpha_t * result

    return slope


_loss = ElementwiseLoss("sigmoid_focal.focal", _value, _slope)
