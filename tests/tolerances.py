"""How far two computations of one operator may differ: one table, each row with its reason.

A bound is relative to the largest magnitude among the expected values, or to the case's ``scale`` where what is
summed is larger than the sums (cancellation).
"""

from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """Largest difference, as a fraction of the values' scale, per floating type; and why it is not smaller."""

    float32: float
    float64: float
    reason: str

    def of(self, dtype):
        """Return the bound for ``dtype``."""
        return self.float32 if np.dtype(dtype) == np.float32 else self.float64


_SUM = "sums of up to some thousand products, added in another order: rounding grows with the number of terms"
_EXACT = "values are selected or copied, never computed"
_ROUNDING = "a few roundings per element"
_LOSS = "exp and log differ in the last digits between libraries; sums of tens of terms"

TOLERANCES = {
    "conv2d": Tolerance(1e-5, 1e-13, _SUM),
    "conv_transpose2d": Tolerance(1e-5, 1e-13, _SUM),
    "linear": Tolerance(1e-5, 1e-13, _SUM),
    "batch_norm": Tolerance(
        5e-6, 1e-13, "sums over a channel in another order, then a difference of nearly equal sums"
    ),
    "max_pool2d": Tolerance(
        1e-6, 1e-14, "values and indices are exact; overlapping windows add gradients in any order"
    ),
    "roi_pool": Tolerance(1e-6, 1e-14, "values and places are exact; gradients of several bins add in any order"),
    "roi_align": Tolerance(
        5e-6, 1e-13, "weights of neighbours round in the array's type; samples and gradients add in any order"
    ),
    "upsample2d": Tolerance(5e-6, 5e-14, "weights of neighbours round in the array's type; gradients add in any order"),
    "relu": Tolerance(0.0, 0.0, _EXACT),
    "sigmoid": Tolerance(5e-7, 1e-15, "exp differs in the last digit between libraries"),
    "softmax": Tolerance(1e-6, 1e-14, "exp differs in the last digit between libraries; a sum over the axis"),
    "add": Tolerance(2e-6, 1e-14, "the forward sum is exact; the gradient of a broadcast array is a sum in any order"),
    "concat": Tolerance(0.0, 0.0, _EXACT),
    "binary_cross_entropy": Tolerance(2e-6, 1e-14, _LOSS),
    "cross_entropy": Tolerance(2e-6, 1e-14, _LOSS),
    "smooth_l1": Tolerance(1e-6, 1e-14, _ROUNDING),
    "sigmoid_focal": Tolerance(2e-6, 1e-14, _LOSS),
    "dice": Tolerance(2e-6, 1e-14, _LOSS),
    "iou": Tolerance(0.0, 0.0, "the same few operations per pair, which IEEE 754 rounds in one way"),
    "suppression": Tolerance(0.0, 0.0, _EXACT),
    "pasting": Tolerance(5e-7, 1e-15, "weights of neighbours round in the array's type"),
}

#: Results that must agree exactly, whatever the operator's row says.
EXACT_RESULTS = {
    ("max_pool2d", "y"): _EXACT,
    ("max_pool2d", "indices"): _EXACT,
    ("roi_pool", "y"): _EXACT,
    ("roi_pool", "argmax"): _EXACT,
    ("add", "y"): "one addition per element, which IEEE 754 rounds in one way",
}


def assert_close(actual, expected, fraction, scale=1.0, what="result"):
    """Check that two results agree: None, dtype, shape, NaN and inf exactly, all else within bounds.

    Parameters
    ----------
    actual, expected : ndarray or None
        What was computed, and what it should be.
    fraction : float
        Bound, as a fraction of the larger of ``scale`` and the largest finite magnitude in ``expected``.
    scale : float
        Least scale.
    what : str
        Begins the message.
    """
    if expected is None or actual is None:
        assert actual is expected, f"{what}: got {type(actual).__name__}, expected {type(expected).__name__}"
        return
    assert isinstance(actual, np.ndarray), f"{what}: got {type(actual).__name__}, expected an array"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if not expected.size:
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], f"{what}: elements that are not finite")
    if not finite.any():
        return
    good = expected[finite].astype(np.float64)
    bound = fraction * max(scale, np.abs(good).max())
    difference = np.abs(actual[finite].astype(np.float64) - good)
    worst = np.where(np.isnan(difference), np.inf, difference).max()
    assert worst <= bound, f"{what}: differs by {worst:.3g}, allowed {bound:.3g}"
