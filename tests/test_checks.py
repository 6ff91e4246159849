"""Bad input ends in one clear sentence that names the argument, on every backend."""

import numpy as np
import pytest

import kernels

F32 = np.float32
BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def halves(*shape):
    return np.full(shape, 0.5, F32)


#: A valid call of each function, which the rows below spoil in one place.
VALID = {
    "conv2d_forward": {"x": zeros(2, 4, 5, 6), "weight": zeros(6, 2, 3, 3), "bias": zeros(6), "groups": 2},
    "conv2d_backward": {
        "dy": zeros(2, 6, 3, 4),
        "x": zeros(2, 4, 5, 6),
        "weight": zeros(6, 2, 3, 3),
        "groups": 2,
    },
    "conv_transpose2d_forward": {"x": zeros(2, 4, 5, 6), "weight": zeros(4, 3, 2, 2), "bias": zeros(3), "stride": 2},
    "conv_transpose2d_backward": {
        "dy": zeros(2, 3, 10, 12),
        "x": zeros(2, 4, 5, 6),
        "weight": zeros(4, 3, 2, 2),
        "stride": 2,
    },
    "batch_norm_forward": {
        "x": zeros(2, 3, 4, 5),
        "gamma": zeros(3),
        "beta": zeros(3),
        "running_mean": zeros(3),
        "running_var": zeros(3),
        "training": True,
    },
    "batch_norm_backward": {
        "dy": zeros(2, 3, 4, 5),
        "x": zeros(2, 3, 4, 5),
        "gamma": zeros(3),
        "mean": zeros(3),
        "inv_std": zeros(3),
        "training": True,
    },
    "max_pool2d_forward": {"x": zeros(2, 3, 6, 8), "kernel_size": 2},
    "max_pool2d_backward": {
        "dy": zeros(2, 3, 3, 4),
        "indices": np.zeros((2, 3, 3, 4), int),
        "input_shape": (2, 3, 6, 8),
    },
    "roi_pool_forward": {"x": zeros(2, 3, 6, 8), "rois": zeros(4, 5), "output_size": 2},
    "roi_pool_backward": {
        "dy": zeros(4, 3, 2, 2),
        "rois": zeros(4, 5),
        "argmax": np.zeros((4, 3, 2, 2), int),
        "input_shape": (2, 3, 6, 8),
    },
    "roi_align_forward": {"x": zeros(2, 3, 6, 8), "rois": zeros(4, 5), "output_size": 2, "aligned": True},
    "roi_align_backward": {
        "dy": zeros(4, 3, 2, 2),
        "rois": zeros(4, 5),
        "input_shape": (2, 3, 6, 8),
        "aligned": True,
    },
    "upsample2d_forward": {"x": zeros(2, 3, 4, 5), "scale_factor": 2},
    "upsample2d_backward": {"dy": zeros(2, 3, 8, 10), "input_shape": (2, 3, 4, 5), "scale_factor": 2},
    "linear_forward": {"x": zeros(2, 4), "weight": zeros(3, 4), "bias": zeros(3)},
    "linear_backward": {"dy": zeros(2, 3), "x": zeros(2, 4), "weight": zeros(3, 4)},
    "relu_forward": {"x": zeros(2, 3)},
    "relu_backward": {"dy": zeros(2, 3), "y": zeros(2, 3)},
    "sigmoid_forward": {"x": zeros(2, 3)},
    "sigmoid_backward": {"dy": zeros(2, 3), "y": zeros(2, 3)},
    "softmax_forward": {"x": zeros(2, 3)},
    "softmax_backward": {"dy": zeros(2, 3), "y": zeros(2, 3)},
    "add_forward": {"a": zeros(2, 3), "b": zeros(3)},
    "add_backward": {"dy": zeros(2, 3), "a_shape": (2, 3), "b_shape": (3,)},
    "concat_forward": {"arrays": [zeros(2, 3, 4), zeros(2, 1, 4)]},
    "concat_backward": {"dy": zeros(2, 4, 4), "sizes": [3, 1]},
    "binary_cross_entropy_forward": {"p": halves(2, 3), "target": halves(2, 3)},
    "binary_cross_entropy_backward": {"dy": 1.0, "p": halves(2, 3), "target": halves(2, 3)},
    "binary_cross_entropy_with_logits_forward": {"x": zeros(2, 3), "target": zeros(2, 3)},
    "binary_cross_entropy_with_logits_backward": {"dy": 1.0, "x": zeros(2, 3), "target": zeros(2, 3)},
    "cross_entropy_forward": {"x": zeros(2, 3), "target": np.zeros(2, int)},
    "cross_entropy_backward": {"dy": 1.0, "x": zeros(2, 3), "target": np.zeros(2, int)},
    "smooth_l1_forward": {"x": zeros(2, 3), "target": zeros(2, 3)},
    "smooth_l1_backward": {"dy": 1.0, "x": zeros(2, 3), "target": zeros(2, 3)},
    "sigmoid_focal_forward": {"x": zeros(2, 3), "target": zeros(2, 3)},
    "sigmoid_focal_backward": {"dy": zeros(2, 3), "x": zeros(2, 3), "target": zeros(2, 3)},
    "dice_forward": {"x": zeros(2, 3), "target": zeros(2, 3)},
    "dice_backward": {"dy": 1.0, "x": zeros(2, 3), "target": zeros(2, 3)},
    "box_iou": {"a": zeros(2, 4), "b": zeros(3, 4)},
    "nms": {"boxes": zeros(2, 4), "scores": zeros(2), "iou_threshold": 0.5},
    "paste_masks": {"masks": zeros(2, 1, 5, 5), "boxes": zeros(2, 4), "image_size": (6, 7)},
}


def of_functions(names, *rows):
    return [(name, *row) for name in names for row in rows]


def both(operator):
    return f"{operator}_forward", f"{operator}_backward"


READ_ONLY = zeros(3)
READ_ONLY.flags.writeable = False
BAD_CLASS = np.array([0, 3])
HALF_SIZE = zeros(2, 3)[:, :2]

#: Function, what to change of its valid call, the error, and the message.
BAD = [
    *of_functions(
        both("conv2d"),
        ({"x": [[0.0]]}, TypeError, r"x is a list; expected a NumPy array"),
        ({"x": zeros(2, 4, 5, 6, dtype=int)}, TypeError, r"x has dtype int64; expected float32 or float64"),
        ({"x": zeros(2, 4, 5, 6, dtype=np.float16)}, TypeError, r"x has dtype float16; expected float32 or float64"),
        ({"x": zeros(2, 4, 5, 6, dtype=complex)}, TypeError, r"x has dtype complex128; expected float32 or float64"),
        (
            {"weight": zeros(6, 2, 3, 3, dtype=float)},
            TypeError,
            r"weight has dtype float64; expected float32, as the other arrays have",
        ),
        ({"x": zeros(4, 5, 6)}, ValueError, r"x has shape \(4, 5, 6\); expected 4 axes, \(N, C, H, W\)"),
        ({"weight": zeros(6, 2)}, ValueError, r"weight has shape \(6, 2\); expected 4 axes"),
        ({"x": zeros(2, 6, 5, 6)}, ValueError, r"weight .* for 4 input channels in 2 group\(s\); x has 6 channels"),
        ({"groups": 3}, ValueError, r"groups is 3, which does not divide the 4 input channels"),
        ({"weight": zeros(5, 2, 3, 3)}, ValueError, r"groups is 2, which does not divide the 5 output channels"),
        ({"groups": 0}, ValueError, r"groups is 0; expected at least 1"),
        ({"groups": 2.0}, TypeError, r"groups is 2.0; expected a whole number"),
        ({"groups": True}, TypeError, r"groups is True; expected a whole number"),
        (
            {"weight": zeros(6, 2, 7, 3)},
            ValueError,
            r"the kernel covers 7x3 pixels \(dilation included\), more than the padded picture's 5x6",
        ),
        ({"dilation": 3}, ValueError, r"the kernel covers 7x7 pixels \(dilation included\), more than .* 5x6"),
        ({"weight": zeros(6, 2, 0, 3)}, ValueError, r"weight has shape .*; expected a kernel of at least 1x1"),
        (
            {"x": zeros(2, 4, 0, 6), "padding": 2},
            ValueError,
            r"x has shape .*; expected a height and width of at least 1",
        ),
        ({"stride": 0}, ValueError, r"stride is 0; expected at least 1"),
        ({"stride": (1, 2, 3)}, ValueError, r"stride is \(1, 2, 3\); expected a whole number or a pair"),
        ({"stride": 1.5}, TypeError, r"stride is 1.5; expected a whole number"),
        ({"stride": "same"}, TypeError, r"stride is 'same'; expected a whole number"),
        ({"padding": -1}, ValueError, r"padding is -1; expected at least 0"),
        ({"dilation": 0}, ValueError, r"dilation is 0; expected at least 1"),
    ),
    (
        "conv2d_forward",
        {"bias": zeros(4)},
        ValueError,
        r"bias .* \(4,\); expected \(6,\), one value per output channel",
    ),
    ("conv2d_forward", {"bias": zeros(6, 1)}, ValueError, r"bias has shape \(6, 1\); expected 1 axes"),
    ("conv2d_forward", {"bias": zeros(6, dtype=float)}, TypeError, r"bias has dtype float64; expected float32"),
    (
        "conv2d_backward",
        {"dy": zeros(2, 6, 5, 6)},
        ValueError,
        r"dy .* expected \(2, 6, 3, 4\), the shape of the output",
    ),
    ("conv2d_backward", {"dy": zeros(2, 6, 3, 4, dtype=float)}, TypeError, r"dy has dtype float64; expected float32"),
    ("conv2d_backward", {"needs": (True, False)}, ValueError, r"needs is \(True, False\); expected three flags"),
    *of_functions(
        both("conv_transpose2d"),
        ({"x": zeros(2, 4, 5)}, ValueError, r"x has shape \(2, 4, 5\); expected 4 axes"),
        ({"x": zeros(2, 3, 5, 6)}, ValueError, r"weight has shape .*, for 4 input channels; x has 3 channels"),
        ({"groups": 3}, ValueError, r"groups is 3, which does not divide the 4 input channels"),
        (
            {"output_padding": 2},
            ValueError,
            r"output_padding is \(2, 2\); expected less than the larger of stride \(2, 2\)",
        ),
        ({"output_padding": (1, 2)}, ValueError, r"output_padding is \(1, 2\); expected less than"),
        ({"output_padding": -1}, ValueError, r"output_padding is -1; expected at least 0"),
        ({"padding": 6}, ValueError, r"the output would be -2x0; padding \(6, 6\) is too large"),
        ({"x": zeros(2, 4, 5, 0)}, ValueError, r"x has shape .*; expected a height and width of at least 1"),
        ({"weight": zeros(4, 0, 2, 2)}, ValueError, r"weight has shape .*; expected sizes of at least 1"),
    ),
    ("conv_transpose2d_forward", {"bias": zeros(4)}, ValueError, r"bias .* \(4,\); expected \(3,\)"),
    ("conv_transpose2d_backward", {"dy": zeros(2, 3, 9, 12)}, ValueError, r"dy .* expected \(2, 3, 10, 12\)"),
    ("conv_transpose2d_backward", {"needs": None}, ValueError, r"needs is None; expected three flags"),
    *of_functions(
        both("linear"),
        ({"x": zeros(2, 4, 1)}, ValueError, r"x has shape \(2, 4, 1\); expected 2 axes, \(N, features\)"),
        ({"weight": zeros(3, 5)}, ValueError, r"weight has shape \(3, 5\), for 5 features; x has 4"),
    ),
    ("linear_forward", {"bias": zeros(4)}, ValueError, r"bias .* expected \(3,\), one value per output feature"),
    ("linear_backward", {"dy": zeros(2, 4)}, ValueError, r"dy has shape \(2, 4\); expected \(2, 3\)"),
    *of_functions(
        both("batch_norm"),
        ({"x": zeros(3, 4, 5)}, ValueError, r"x has shape \(3, 4, 5\); expected 4 axes"),
        ({"gamma": zeros(2)}, ValueError, r"gamma has shape \(2,\); expected \(3,\), one value per channel of x"),
        ({"gamma": zeros(3, dtype=float)}, TypeError, r"gamma has dtype float64; expected float32"),
    ),
    ("batch_norm_forward", {"beta": zeros(4)}, ValueError, r"beta has shape \(4,\); expected \(3,\)"),
    ("batch_norm_forward", {"running_mean": zeros(4)}, ValueError, r"running_mean has shape \(4,\); expected \(3,\)"),
    ("batch_norm_forward", {"running_var": None}, ValueError, r"one of running_mean and running_var is None"),
    (
        "batch_norm_forward",
        {"running_mean": None, "running_var": None, "training": False},
        ValueError,
        r"running_mean and running_var are None; expected arrays when training is False",
    ),
    (
        "batch_norm_forward",
        {"x": zeros(1, 3, 1, 1)},
        ValueError,
        r"x has shape .*: one value per channel has no variance",
    ),
    ("batch_norm_forward", {"running_mean": READ_ONLY}, ValueError, r"running_mean is read-only, not contiguous"),
    ("batch_norm_forward", {"running_var": zeros(6)[::2]}, ValueError, r"running_var is read-only, not contiguous"),
    ("batch_norm_forward", {"running_var": zeros(3, dtype=">f4")}, ValueError, r"running_var is .*foreign byte order"),
    ("batch_norm_forward", {"momentum": None}, TypeError, r"momentum is None; expected a number"),
    ("batch_norm_forward", {"momentum": np.nan}, ValueError, r"momentum is nan; expected a finite number"),
    ("batch_norm_forward", {"eps": -1e-5}, ValueError, r"eps is -1e-05; expected at least 0"),
    ("batch_norm_forward", {"eps": "small"}, TypeError, r"eps is 'small'; expected a number"),
    ("batch_norm_forward", {"eps": 10**400}, TypeError, r"eps is 1000.*; expected a number"),
    ("batch_norm_backward", {"dy": zeros(2, 3, 4, 4)}, ValueError, r"dy has shape .* expected .*, the shape of x"),
    ("batch_norm_backward", {"mean": None}, TypeError, r"mean or inv_std is None; expected the arrays that"),
    ("batch_norm_backward", {"inv_std": zeros(2)}, ValueError, r"inv_std has shape \(2,\); expected \(3,\)"),
    *of_functions(
        ("max_pool2d_forward",),
        ({"x": zeros(6, 8)}, ValueError, r"x has shape \(6, 8\); expected 4 axes"),
        ({"x": zeros(2, 3, 0, 8)}, ValueError, r"x has shape .*; expected a height and width of at least 1"),
        ({"kernel_size": 0}, ValueError, r"kernel_size is 0; expected at least 1"),
        ({"kernel_size": None}, TypeError, r"kernel_size is None; expected a whole number"),
        ({"kernel_size": (7, 2)}, ValueError, r"kernel_size is \(7, 2\), covering 7x2 pixels .*, more than .* 6x8"),
        ({"dilation": 6}, ValueError, r"kernel_size is \(2, 2\), covering 7x7 pixels"),
        ({"padding": 2}, ValueError, r"padding is \(2, 2\); expected at most half of the kernel's reach"),
        ({"stride": 0}, ValueError, r"stride is 0; expected at least 1"),
        (
            {"x": zeros(1, 1, 1, 8), "dilation": (2, 1), "padding": (1, 0)},
            ValueError,
            r"dilation is \(2, 1\), so that a window in the padding has no pixel of the height 1",
        ),
    ),
    *of_functions(
        ("max_pool2d_backward",),
        ({"indices": np.full((2, 3, 3, 4), 48)}, ValueError, r"indices has values from 48 to 48; expected 0 to 47"),
        ({"indices": np.full((2, 3, 3, 4), -1)}, ValueError, r"indices has values from -1 to -1; expected 0 to 47"),
        ({"indices": np.full((2, 3, 3, 4), 2**64 - 1, np.uint64)}, ValueError, r"indices has values from -1 to -1"),
        ({"indices": zeros(2, 3, 3, 4)}, TypeError, r"indices has dtype float32; expected integers"),
        ({"indices": [0]}, TypeError, r"indices is a list; expected a NumPy array"),
        ({"indices": np.zeros((2, 3, 3, 3), int)}, ValueError, r"indices has shape .*; expected \(2, 3, 3, 4\)"),
        ({"input_shape": (2, 4, 6, 8)}, ValueError, r"input_shape is .*; expected \(2, 3\) for N and C, as dy has"),
        ({"input_shape": (6, 8)}, ValueError, r"input_shape is \(6, 8\); expected a shape of 4 sizes"),
        ({"input_shape": (2, 3, -6, 8)}, ValueError, r"input_shape is -6; expected at least 0"),
        (
            {"onto": zeros(2, 3, 6, 7)},
            ValueError,
            r"onto has shape \(2, 3, 6, 7\); expected \(2, 3, 6, 8\), input_shape",
        ),
        ({"onto": np.zeros((2, 3, 6, 8))}, TypeError, r"onto has dtype float64; expected float32"),
    ),
    *of_functions(
        both("upsample2d"),
        ({"mode": "bicubic"}, ValueError, r"mode is 'bicubic'; expected 'nearest' or 'bilinear'"),
        ({"align_corners": True}, ValueError, r"align_corners is True; expected False with mode 'nearest'"),
        ({"scale_factor": None}, ValueError, r"expected one of size and scale_factor; got neither"),
        ({"size": 4}, ValueError, r"expected one of size and scale_factor; got both"),
        ({"size": 0, "scale_factor": None}, ValueError, r"size is 0; expected at least 1"),
        ({"scale_factor": 0.1}, ValueError, r"scale_factor is 0.1, which makes 0x0 of 4x5; expected at least 1x1"),
        ({"scale_factor": -2}, ValueError, r"scale_factor is -2.0; expected at least 0"),
        ({"scale_factor": np.inf}, ValueError, r"scale_factor is inf; expected a finite number"),
        ({"scale_factor": "2"}, TypeError, r"scale_factor is '2'; expected a number"),
        ({"scale_factor": (1, 2, 3)}, ValueError, r"scale_factor is \(1, 2, 3\); expected a number or a pair"),
    ),
    (
        "upsample2d_forward",
        {"x": zeros(2, 3, 0, 5)},
        ValueError,
        r"the input has shape .*; expected a height and width",
    ),
    ("upsample2d_backward", {"dy": zeros(2, 3, 8, 9)}, ValueError, r"dy has shape .*; expected \(2, 3, 8, 10\)"),
    ("upsample2d_backward", {"input_shape": 4}, ValueError, r"input_shape is 4; expected a shape of 4 sizes"),
    *of_functions(
        ("relu_forward", "sigmoid_forward", "softmax_forward"),
        ({"x": 1.0}, TypeError, r"x is a float; expected a NumPy array"),
        ({"x": np.array([[True]])}, TypeError, r"x has dtype bool; expected float32 or float64"),
        ({"x": np.array([["a"]])}, TypeError, r"x has dtype <U1; expected float32 or float64"),
    ),
    *of_functions(
        ("relu_backward", "sigmoid_backward", "softmax_backward"),
        ({"dy": zeros(3, 2)}, ValueError, r"dy has shape \(3, 2\); expected \(2, 3\), the shape of y"),
        ({"dy": zeros(2, 3, dtype=float)}, TypeError, r"dy has dtype float64; expected float32"),
    ),
    *of_functions(
        both("softmax"),
        ({"axis": 2}, ValueError, r"axis is 2; expected one from -2 to 1"),
        ({"axis": -3}, ValueError, r"axis is -3; expected one from -2 to 1"),
        ({"axis": None}, TypeError, r"axis is None; expected a whole number"),
    ),
    (
        "add_forward",
        {"b": zeros(2)},
        ValueError,
        r"a has shape \(2, 3\) and b has shape \(2,\), which do not broadcast",
    ),
    ("add_forward", {"b": zeros(3, dtype=float)}, TypeError, r"b has dtype float64; expected float32"),
    (
        "add_backward",
        {"b_shape": (2,)},
        ValueError,
        r"a_shape is \(2, 3\) and b_shape is \(2,\), which do not broadcast",
    ),
    ("add_backward", {"dy": zeros(3)}, ValueError, r"dy has shape \(3,\); expected \(2, 3\), the shape of the output"),
    ("add_backward", {"a_shape": 3}, ValueError, r"a_shape is 3; expected a shape"),
    ("concat_forward", {"arrays": []}, ValueError, r"arrays is empty or not a list; expected at least one array"),
    ("concat_forward", {"arrays": zeros(2, 3)}, ValueError, r"arrays is empty or not a list"),
    (
        "concat_forward",
        {"arrays": [zeros(2, 3), zeros(3, 3)]},
        ValueError,
        r"arrays\[1\] has shape \(3, 3\); expected \(2, 3\) but for axis 1",
    ),
    (
        "concat_forward",
        {"arrays": [zeros(2, 3), zeros(2, 3, dtype=float)]},
        TypeError,
        r"arrays\[1\] has dtype float64; expected float32",
    ),
    (
        "concat_forward",
        {"arrays": [zeros(2, 3), zeros(3)]},
        ValueError,
        r"arrays\[1\] has shape \(3,\); expected 2 axes",
    ),
    (
        "concat_forward",
        {"arrays": [zeros(2, 3), None]},
        TypeError,
        r"arrays\[1\] is a NoneType; expected a NumPy array",
    ),
    ("concat_forward", {"axis": 3}, ValueError, r"axis is 3; expected one from -3 to 2"),
    ("concat_backward", {"sizes": [3, 2]}, ValueError, r"sizes sum to 5; expected 4, the size of dy along axis 1"),
    ("concat_backward", {"sizes": [5, -1]}, ValueError, r"sizes is -1; expected at least 0"),
    ("concat_backward", {"sizes": 4}, ValueError, r"sizes is 4; expected a list"),
    *of_functions(
        [
            *both("binary_cross_entropy_with_logits"),
            *both("smooth_l1"),
            *both("sigmoid_focal"),
            *both("dice"),
        ],
        ({"target": zeros(3, 2)}, ValueError, r"target has shape \(3, 2\); expected \(2, 3\), the shape of x"),
        ({"target": np.zeros((2, 3), int)}, TypeError, r"target has dtype int64; expected float32 or float64"),
        ({"target": zeros(2, 3, dtype=float)}, TypeError, r"target has dtype float64; expected float32"),
    ),
    *of_functions(
        both("binary_cross_entropy"),
        ({"p": halves(2, 3) + 1}, ValueError, r"p has values from 1.5 to 1.5; expected 0 to 1"),
        ({"p": -halves(2, 3)}, ValueError, r"p has values from -0.5 to -0.5; expected 0 to 1"),
        ({"target": halves(2, 3) * 4}, ValueError, r"target has values from 2 to 2; expected 0 to 1"),
        ({"target": halves(2)}, ValueError, r"target has shape \(2,\); expected \(2, 3\), the shape of p"),
        ({"weight": zeros(2)}, ValueError, r"weight has shape \(2,\), which does not broadcast to \(2, 3\)"),
    ),
    *of_functions(
        both("binary_cross_entropy_with_logits"),
        ({"weight": zeros(2)}, ValueError, r"weight has shape \(2,\), which does not broadcast to \(2, 3\)"),
        ({"pos_weight": zeros(4, 2, 3)}, ValueError, r"pos_weight .*, which does not broadcast to \(2, 3\)"),
        ({"pos_weight": 2.0}, TypeError, r"pos_weight is a float; expected a NumPy array"),
    ),
    *of_functions(
        both("cross_entropy"),
        ({"x": zeros(3)}, ValueError, r"x has shape \(3,\); expected \(N, C\) or \(N, C, \.\.\.\)"),
        ({"x": zeros(2, 0)}, ValueError, r"x has shape \(2, 0\); .* one or more classes"),
        (
            {"target": BAD_CLASS},
            ValueError,
            r"target has class 3 at index \(1,\); expected 0 to 2, or -100 to be ignored",
        ),
        ({"target": np.array([-1, 0])}, ValueError, r"target has class -1 at index \(0,\)"),
        ({"target": zeros(2)}, TypeError, r"target has dtype float32; expected integers"),
        ({"target": np.zeros(3, int)}, ValueError, r"target has shape \(3,\); expected \(2,\)"),
        ({"weight": zeros(2)}, ValueError, r"weight has shape \(2,\); expected \(3,\), one value per class"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing is 1.5; expected at most 1"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing is -0.1; expected at least 0"),
        ({"ignore_index": None}, TypeError, r"ignore_index is None; expected a whole number"),
    ),
    *of_functions(both("smooth_l1"), ({"beta": -1}, ValueError, r"beta is -1.0; expected at least 0")),
    *of_functions(
        both("sigmoid_focal"),
        ({"alpha": 2}, ValueError, r"alpha is 2.0; expected at most 1"),
        ({"gamma": -1}, ValueError, r"gamma is -1.0; expected at least 0"),
    ),
    *of_functions(both("dice"), ({"smooth": -1}, ValueError, r"smooth is -1.0; expected at least 0")),
    *of_functions(
        [
            f"{loss}_{way}"
            for loss in (
                "binary_cross_entropy",
                "binary_cross_entropy_with_logits",
                "cross_entropy",
                "smooth_l1",
                "sigmoid_focal",
                "dice",
            )
            for way in ("forward", "backward")
        ],
        ({"reduction": "average"}, ValueError, r"reduction is 'average'; expected 'none', 'mean' or 'sum'"),
    ),
    *of_functions(
        [
            "binary_cross_entropy_backward",
            "binary_cross_entropy_with_logits_backward",
            "cross_entropy_backward",
            "smooth_l1_backward",
            "dice_backward",
        ],
        (
            {"dy": zeros(2)},
            ValueError,
            r"dy has shape \(2,\); expected \(\), the shape of the loss with reduction 'mean'",
        ),
        ({"dy": np.array(1.0)}, TypeError, r"dy has dtype float64; expected float32"),
        ({"dy": None}, TypeError, r"dy is a NoneType; expected a NumPy array"),
    ),
    (
        "sigmoid_focal_backward",
        {"dy": zeros(3)},
        ValueError,
        r"dy has shape \(3,\); expected \(2, 3\), the shape of the",
    ),
    (
        "cross_entropy_backward",
        {"dy": zeros(2, 3), "reduction": "none"},
        ValueError,
        r"dy has shape \(2, 3\); expected \(2,\), the shape of the loss with reduction 'none'",
    ),
]


@BACKENDS
@pytest.mark.parametrize(("name", "change", "error", "message"), BAD)
def test_bad_input_is_named(backend, name, change, error, message):
    with pytest.raises(error, match=f"^{message}") as caught:
        getattr(kernels.get(backend), name)(**VALID[name] | change)
    assert "\n" not in str(caught.value)


@BACKENDS
@pytest.mark.parametrize("name", VALID)
def test_what_the_rows_spoil_is_valid(backend, name):
    getattr(kernels.get(backend), name)(**VALID[name])


def test_every_function_has_a_valid_call():
    assert set(VALID) == {name for names in kernels.CONTRACT.values() for name in names}
