"""``exp`` and logarithms that LLVM can put into vector instructions: no branch, no call, no table.

``math.exp`` is a call per element. Here every step is arithmetic on the element alone, so a loop over an array runs on
as many elements at once as a register holds. Each function keeps the type of its argument, float32 or float64, and is
within 2 units in the last place of the exact value. NaN gives NaN.

The names ``exp``, ``log``, ``log1p`` and ``log1p_of_share`` below are what a compiled kernel calls; called from plain
Python, as when Numba's compiler is switched off, they are NumPy's.
"""

import numpy as np
from numba import types
from numba.extending import overload

from kernels.jit import jit

# x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2**n exp(r). ln 2 is split in two: n times the high part is exact.
# Adding 1.5 * 2**(bits of the fraction) rounds to a whole number and leaves it in the low bits of the sum. 2**n comes
# in two factors: either alone is a normal number where 2**n is infinite or denormal. Twice the bias of exponents is
# added to n beforehand, so that each half of it is an exponent as it stands; shifting it into place drops other bits.


@jit(fastmath={"contract"})
def _exp_float32(x):
    """Return exp(x): Taylor series of degree 7, whose first missing term is below 5e-9."""
    f, i = np.float32, np.int32
    x = f(-110) if x < f(-110) else (f(100) if x > f(100) else x)
    shifted = x * f(1.4426950408889634) + f(12582912 + 254)
    n = shifted - f(12582912 + 254)
    r = (x - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1 / 5040)
    p = p * r + f(1 / 720)
    p = p * r + f(1 / 120)
    p = p * r + f(1 / 24)
    p = p * r + f(1 / 6)
    p = p * r + f(1 / 2)
    p = p * r * r + r + f(1)
    whole = f(shifted).view(i)
    half = whole >> i(1)
    first, second = i(half << i(23)).view(f), i(i(whole - half) << i(23)).view(f)
    return p * first * second


@jit(fastmath={"contract"})
def _exp_float64(x):
    """Return exp(x): Taylor series of degree 13, whose first missing term is below 5e-18."""
    f, i = np.float64, np.int64
    x = f(-760) if x < f(-760) else (f(720) if x > f(720) else x)
    shifted = x * f(1.4426950408889634) + f(6755399441055744 + 2046)
    n = shifted - f(6755399441055744 + 2046)
    r = (x - n * f(6.93145751953125e-1)) - n * f(1.42860682030941723212e-6)
    p = f(1 / 6227020800)
    p = p * r + f(1 / 479001600)
    p = p * r + f(1 / 39916800)
    p = p * r + f(1 / 3628800)
    p = p * r + f(1 / 362880)
    p = p * r + f(1 / 40320)
    p = p * r + f(1 / 5040)
    p = p * r + f(1 / 720)
    p = p * r + f(1 / 120)
    p = p * r + f(1 / 24)
    p = p * r + f(1 / 6)
    p = p * r + f(1 / 2)
    p = p * r * r + r + f(1)
    whole = f(shifted).view(i)
    half = whole >> i(1)
    first, second = i(half << i(52)).view(f), i((whole - half) << i(52)).view(f)
    return p * first * second


# x = m 2**n with sqrt(1/2) <= m < sqrt(2). With s = (m - 1) / (m + 1), log(m) = 2 (s + s**3/3 + s**5/5 + ...).


@jit(fastmath={"contract"})
def _log_float32(x):
    """Return log(x): the series up to s**11, whose first missing term is below 3e-10 of the sum."""
    f, i = np.float32, np.int32
    denormal = x < f(1.1754944e-38)
    scaled = x * f(16777216) if denormal else x
    bits = f(scaled).view(i)
    n = (bits - i(0x3F3504F3)) >> i(23)
    m = i(bits - (n << i(23))).view(f)
    exponent = f(n) - (f(24) if denormal else f(0))
    a = m - f(1)
    s = a / (m + f(1))
    z = s * s
    p = f(2 / 11)
    p = p * z + f(2 / 9)
    p = p * z + f(2 / 7)
    p = p * z + f(2 / 5)
    p = p * z + f(2 / 3)
    # 2 s = a - s a, which keeps the leading term exact
    log_m = a - s * (a - z * p)
    y = exponent * f(0.693359375) + (exponent * f(-2.12194440e-4) + log_m)
    y = x if x == f(np.inf) else y
    y = f(-np.inf) if x == f(0) else y
    return y if x >= f(0) else f(np.nan)


@jit(fastmath={"contract"})
def _log_float64(x):
    """Return log(x): the series up to s**21, whose first missing term is below 1e-18 of the sum."""
    f, i = np.float64, np.int64
    denormal = x < f(2.2250738585072014e-308)
    scaled = x * f(18014398509481984) if denormal else x
    bits = f(scaled).view(i)
    n = (bits - i(0x3FE6A09E667F3BCD)) >> i(52)
    m = i(bits - (n << i(52))).view(f)
    exponent = f(n) - (f(54) if denormal else f(0))
    a = m - f(1)
    s = a / (m + f(1))
    z = s * s
    p = f(2 / 21)
    p = p * z + f(2 / 19)
    p = p * z + f(2 / 17)
    p = p * z + f(2 / 15)
    p = p * z + f(2 / 13)
    p = p * z + f(2 / 11)
    p = p * z + f(2 / 9)
    p = p * z + f(2 / 7)
    p = p * z + f(2 / 5)
    p = p * z + f(2 / 3)
    log_m = a - s * (a - z * p)
    y = exponent * f(6.93145751953125e-1) + (exponent * f(1.42860682030941723212e-6) + log_m)
    y = x if x == f(np.inf) else y
    y = f(-np.inf) if x == f(0) else y
    return y if x >= f(0) else f(np.nan)


@jit(fastmath={"contract"})
def _log1p_float32(x):
    """Return log(1 + x), corrected for what 1 + x loses by rounding."""
    f = np.float32
    u = f(1) + x
    correction = (x - (u - f(1))) / u
    y = _log_float32(u) + correction
    return y if (u > f(0)) & (u < f(np.inf)) else _log_float32(u)


@jit(fastmath={"contract"})
def _log1p_float64(x):
    """Return log(1 + x), corrected for what 1 + x loses by rounding."""
    f = np.float64
    u = f(1) + x
    correction = (x - (u - f(1))) / u
    y = _log_float64(u) + correction
    return y if (u > f(0)) & (u < f(np.inf)) else _log_float64(u)


# log(1 + x) = 2 (s + s**3/3 + s**5/5 + ...) with s = x / (2 + x), which is at most 1/3 here


@jit(fastmath={"contract"})
def _log1p_of_share_float32(x):
    """Return log(1 + x) for x from 0 to 1: the series up to s**13; what is missing is below 2e-8 of the sum."""
    f = np.float32
    s = x / (f(2) + x)
    z = s * s
    p = f(2 / 13)
    p = p * z + f(2 / 11)
    p = p * z + f(2 / 9)
    p = p * z + f(2 / 7)
    p = p * z + f(2 / 5)
    p = p * z + f(2 / 3)
    # 2 s = x - s x, which keeps the leading term exact
    return x - s * (x - z * p)


@jit(fastmath={"contract"})
def _log1p_of_share_float64(x):
    """Return log(1 + x) for x from 0 to 1: the series up to s**31; what is missing is below 2e-17 of the sum."""
    f = np.float64
    s = x / (f(2) + x)
    z = s * s
    p = f(2 / 31)
    p = p * z + f(2 / 29)
    p = p * z + f(2 / 27)
    p = p * z + f(2 / 25)
    p = p * z + f(2 / 23)
    p = p * z + f(2 / 21)
    p = p * z + f(2 / 19)
    p = p * z + f(2 / 17)
    p = p * z + f(2 / 15)
    p = p * z + f(2 / 13)
    p = p * z + f(2 / 11)
    p = p * z + f(2 / 9)
    p = p * z + f(2 / 7)
    p = p * z + f(2 / 5)
    p = p * z + f(2 / 3)
    # 2 s = x - s x, which keeps the leading term exact
    return x - s * (x - z * p)


def exp(x):
    """Return e to the power of ``x``."""
    return np.exp(x)


def log(x):
    """Return the natural logarithm of ``x``."""
    return np.log(x)


def log1p(x):
    """Return the natural logarithm of ``1 + x``, accurate for small ``x``."""
    return np.log1p(x)


def log1p_of_share(x):
    """Return ``log1p(x)`` for ``x`` from 0 to 1 only: a third of the work."""
    return np.log1p(x)


@overload(exp)
def _compiled_exp(x):
    return (lambda x: _exp_float32(x)) if x == types.float32 else (lambda x: _exp_float64(x))


@overload(log)
def _compiled_log(x):
    return (lambda x: _log_float32(x)) if x == types.float32 else (lambda x: _log_float64(x))


@overload(log1p)
def _compiled_log1p(x):
    return (lambda x: _log1p_float32(x)) if x == types.float32 else (lambda x: _log1p_float64(x))


@overload(log1p_of_share)
def _compiled_log1p_of_share(x):
    return (lambda x: _log1p_of_share_float32(x)) if x == types.float32 else (lambda x: _log1p_of_share_float64(x))
