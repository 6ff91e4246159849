"""Max pooling, and resizing."""

import math

from tinyseg.backend import has_kernel, kernel
from tinyseg.function import Function


class MaxPool2d(Function):
    gradients_are_new = adds_up = True

    def forward(self, x, *, return_indices, **parameters):
        if not (any(self.needs) or return_indices) and has_kernel("max_pool2d_maxima", x):
            return kernel("max_pool2d_maxima")(x, **parameters)
        y, indices = kernel("max_pool2d_forward")(x, **parameters)
        self.saved = (indices,)
        self.shape = x.shape
        return y, indices

    def backward(self, dy):
        (indices,), onto = self.saved, self.onto
        if onto is None or (onto.shape, onto.dtype) == (self.shape, dy.dtype):
            return kernel("max_pool2d_backward")(dy, indices, self.shape, onto)
        return onto + kernel("max_pool2d_backward")(dy, indices, self.shape)  # of a user's function, say


class Interpolate(Function):
    def forward(self, x, **parameters):
        self.shape, self.parameters = x.shape, parameters
        return kernel("upsample2d_forward")(x, **parameters)

    def backward(self, dy):
        return kernel("upsample2d_backward")(dy, self.shape, **self.parameters)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Return the largest value of each window. Arguments and their order follow PyTorch.

    Parameters
    ----------
    input : Tensor
        ``(N, C, H, W)``.
    kernel_size : int or (int, int)
        Size of the window: vertical, horizontal.
    stride : int or (int, int), optional
        Steps of the window; the window's size if left out.
    padding : int or (int, int)
        Pixels added on each side, which never win; at most half the window.
    dilation : int or (int, int)
        Step between the elements of a window.
    ceil_mode : bool
        Keep a last window that only partly lies on the picture.
    return_indices : bool
        Also return where each maximum was.

    Returns
    -------
    y : Tensor
        ``(N, C, oH, oW)``.
    indices : Tensor
        int64, same shape: place of the maximum in the plane, ``row * W + column``. Only if asked for.

    Raises
    ------
    TypeError, ValueError
        If the type, the shape or a parameter does not fit.
    """
    result = MaxPool2d.apply(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        return_indices=return_indices,
    )
    return result[0] if isinstance(result, tuple) and not return_indices else result


def interpolate(input, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
    """Resize pictures. Arguments and their order follow PyTorch.

    Parameters
    ----------
    input : Tensor
        ``(N, C, H, W)``.
    size : int or (int, int), optional
        Size of the output.
    scale_factor : float or (float, float), optional
        Output size by input size, instead of ``size``.
    mode : {"nearest", "bilinear"}
        How values between pixels are found.
    align_corners : bool, optional
        For ``"bilinear"``: whether the centres of the corner pixels, rather than the corners, keep their places.
        False if left out.
    recompute_scale_factor : bool, optional
        Use the ratio of the rounded sizes, not ``scale_factor`` itself, as the step between samples.

    Returns
    -------
    Tensor
        ``(N, C, oH, oW)``.

    Raises
    ------
    ValueError
        If not exactly one of size and scale_factor is given, or a parameter does not fit.
    """
    if align_corners is not None and mode == "nearest":
        raise ValueError(f"align_corners is {align_corners} with mode 'nearest'; expected None")
    if recompute_scale_factor and size is None and scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
        size = tuple(math.floor(n * factor) for n, factor in zip(input.shape[2:], factors, strict=True))
        scale_factor = None
    elif recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor is True with a size; expected a scale_factor")
    return Interpolate.apply(input, size=size, scale_factor=scale_factor, mode=mode, align_corners=bool(align_corners))
