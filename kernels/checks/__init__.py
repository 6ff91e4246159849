"""Every check of dtype, shape, layout and index: the only place in ``kernels`` that raises for them.

Each operator's check takes what the caller gave and returns what a kernel may rely on: C-contiguous arrays of one
native floating type, parameters as pairs, and the sizes that follow from them. A kernel itself has no bounds checks,
so an index that would leave an array must not get past this folder.
"""

from kernels.checks.arguments import (
    array,
    axis,
    divides,
    has_pixels,
    index_array,
    integer,
    number,
    pair,
    reduction,
    same_shape,
    shape,
    three_flags,
)
from kernels.checks.boxes import box_iou, boxes, nms, paste_masks
from kernels.checks.convolution import (
    ConvGeometry,
    conv2d,
    conv2d_gradient,
    conv_transpose2d,
    conv_transpose2d_gradient,
    linear,
    linear_gradient,
)
from kernels.checks.elementwise import add, add_gradient, concat, concat_gradient, gradient_of
from kernels.checks.layers import (
    PoolGeometry,
    ResizeGeometry,
    batch_norm,
    batch_norm_gradient,
    batch_norm_relu_gradient,
    like_x,
    max_pool2d,
    max_pool2d_gradient,
    pooled_indices,
    upsample2d,
    upsample2d_gradient,
)
from kernels.checks.losses import broadcast_to, cross_entropy, loss_gradient, loss_pair, probabilities
from kernels.checks.optimizer_steps import adam_step, arrays_in_place, float_arrays, sgd_step
from kernels.checks.rois import roi_align, roi_align_gradient, roi_pool, roi_pool_gradient

__all__ = [
    "ConvGeometry",
    "PoolGeometry",
    "ResizeGeometry",
    "adam_step",
    "add",
    "add_gradient",
    "array",
    "arrays_in_place",
    "axis",
    "batch_norm",
    "batch_norm_gradient",
    "batch_norm_relu_gradient",
    "box_iou",
    "boxes",
    "broadcast_to",
    "concat",
    "concat_gradient",
    "conv2d",
    "conv2d_gradient",
    "conv_transpose2d",
    "conv_transpose2d_gradient",
    "cross_entropy",
    "divides",
    "float_arrays",
    "gradient_of",
    "has_pixels",
    "index_array",
    "integer",
    "like_x",
    "linear",
    "linear_gradient",
    "loss_gradient",
    "loss_pair",
    "max_pool2d",
    "max_pool2d_gradient",
    "nms",
    "number",
    "pair",
    "paste_masks",
    "pooled_indices",
    "probabilities",
    "reduction",
    "roi_align",
    "roi_align_gradient",
    "roi_pool",
    "roi_pool_gradient",
    "same_shape",
    "sgd_step",
    "shape",
    "three_flags",
    "upsample2d",
    "upsample2d_gradient",
]
