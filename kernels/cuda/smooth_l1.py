"""Smooth L1 loss: a parabola near 0, a line beyond ``beta``. A thread takes one element after the other.

What the reductions and the gradient share with other losses is in ``reduction``.
"""

from kernels import checks
from kernels.cuda.device import device_function
from kernels.cuda.reduction import ElementwiseLoss


def smooth_l1_forward(x, target, beta=1.0, reduction="mean"):
    """Return the smooth L1 loss.

    Parameters
    ----------
    x, target : ndarray or DeviceArray
        Any shape, float32 or float64; target of x's shape and type.
    beta : float
        Difference at which the parabola meets the line; 0 or more.
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
        If the shapes differ, or beta is negative.

    Notes
    -----
    Follows ``torch.nn.functional.smooth_l1_loss``.
    """
    x, target = checks.loss_pair(x, target)
    beta, reduction = checks.number("beta", beta, 0), checks.reduction(reduction)
    return _loss.forward(reduction, x, target, a=beta)


def smooth_l1_backward(dy, x, target, beta=1.0, reduction="mean"):
    """Return the gradient of `smooth_l1_forward` with respect to x.

    Parameters
    ----------
    dy : ndarray or DeviceArray or float
        Gradient of the loss, of its shape.
    x, target, beta, reduction
        As given to `smooth_l1_forward`.

    Returns
    -------
    DeviceArray
        Of x's shape and type.

    Raises
    ------
    TypeError, ValueError
        As `smooth_l1_forward`, and if dy has not the shape of the loss.
    """
    x, target = checks.loss_pair(x, target)
    beta = checks.number("beta", beta, 0)
    return _loss.backward(checks.loss_gradient(dy, x, reduction), reduction, x, target, a=beta)


def _value(T):
    @device_function
    def value(x, t, w, pos, beta, _):
        d = abs(x - t)
        if d < beta:
            return d * d / (T(2) * beta)
        return d - beta / T(2)

    return value


def _slope(T):
    @device_function
    def slope(x, t, w, pos, beta, _):
        d = x - t
        if abs(d) < beta:
            return d / beta
        if d > T(0):
            return T(1)
        if d < T(0):
            return T(-1)
        return d  # 0, or NaN

    return slope


_loss = ElementwiseLoss("smooth_l1.smooth_l1", _value, _slope)
