"""The differentiable operators, with PyTorch's names and order of arguments. Importing them equips ``Tensor``."""

from tinyseg.ops.activation import relu, sigmoid, softmax
from tinyseg.ops.boxes import batched_nms, box_iou, nms, paste_masks
from tinyseg.ops.convolution import conv2d, conv2d_relu, conv_transpose2d, conv_transpose2d_relu, linear
from tinyseg.ops.elementwise import add, exp, log
from tinyseg.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    dice_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from tinyseg.ops.normalization import batch_norm, batch_norm_relu
from tinyseg.ops.pooling import interpolate, max_pool2d
from tinyseg.ops.rois import multi_scale_roi, roi_align, roi_pool
from tinyseg.ops.shapes import cat, flatten, mean, pad, permute, reshape, sum, transpose

# what equips Tensor, and nothing else
from tinyseg.ops import devices as _devices  # noqa: F401  # isort: skip

# last: its operators build on those above
from tinyseg.ops import inplace as _inplace  # noqa: F401  # isort: skip

__all__ = [
    "add",
    "batch_norm",
    "batch_norm_relu",
    "batched_nms",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "box_iou",
    "cat",
    "conv2d",
    "conv2d_relu",
    "conv_transpose2d",
    "conv_transpose2d_relu",
    "cross_entropy",
    "dice_loss",
    "exp",
    "flatten",
    "interpolate",
    "linear",
    "log",
    "max_pool2d",
    "mean",
    "multi_scale_roi",
    "nms",
    "pad",
    "paste_masks",
    "permute",
    "relu",
    "reshape",
    "roi_align",
    "roi_pool",
    "sigmoid",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax",
    "sum",
    "transpose",
]
