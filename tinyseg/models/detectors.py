"""Faster R-CNN and Mask R-CNN: backbone, proposals, and what is in each of them.

On a GPU (``model.to("cuda")``) all networks, pooling, losses, their gradients and the optimiser run there, and so does
laying masks into pictures. What decides about boxes is left to the host: which anchors become proposals, which of them
and of the proposals a step trains on and on what, and which boxes count as found. These are choices one after the
other, on few numbers, drawn by a generator of the host. All that is copied between the two:

- pictures that lie on the other side, one by one; for each one the mean and deviation of its channels;
- to the host: logits and codes of the anchors, and in evaluation those of the proposals; boxes, classes and masks of
  the truth, where they lie on the device;
- to the device, in training: for the losses of proposals, of boxes and of masks what the network should say, and which
  of its numbers it is compared with;
- to the device: the boxes to pool from each map, in training once more for the gradient; and where several maps are
  pooled from, which boxes these are;
- to the device, in evaluation: which masks to show; boxes, labels and scores of what was found;
- words to the host that say whether values are what a kernel takes: classes for the cross entropy, forward and
  backward; for each map with ``roi_op="pool"`` its places of maxima, backward; boxes to lay masks into;
- the optimiser's table of where parameters lie.

``tests/test_cuda_detectors.py`` counts them.
"""

from typing import Any

import numpy as np

from tinyseg import boxes as box_tools
from tinyseg import nn, ops
from tinyseg.backend import device_of, moved
from tinyseg.models.heads import FastRCNNPredictor, MaskRCNNHeads, MaskRCNNPredictor, TwoMLPHead
from tinyseg.models.roi_heads import RoIHeads
from tinyseg.models.roi_pooling import MultiScaleRoIPooling
from tinyseg.models.rpn import RegionProposalNetwork, RPNHead
from tinyseg.models.targets import check_targets
from tinyseg.models.transform import GeneralizedRCNNTransform, resize_boxes
from tinyseg.tensor import Tensor, array_of, tensor_beside

#: Mean and standard deviation of red, green and blue over ImageNet, which torchvision's backbones were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class GeneralizedRCNN(nn.Module):
    """A detector of two stages.

    Parameters
    ----------
    backbone : Module
        Makes a dictionary of maps of pictures.
    rpn : RegionProposalNetwork
        Proposes boxes.
    roi_heads : RoIHeads
        Finds out what is in them.
    transform : GeneralizedRCNNTransform
        Prepares the pictures.

    Attributes
    ----------
    generator : numpy.random.Generator or None
        Draws what a training step trains on; tinyseg's own generator where None.
    config : dict or None
        What `tinyseg.models.from_config` builds the same network from, if a function of `tinyseg.models` made it.
    """

    def __init__(self, backbone, rpn, roi_heads, transform):
        super().__init__()
        self.transform, self.backbone, self.rpn, self.roi_heads = transform, backbone, rpn, roi_heads
        self.generator: np.random.Generator | None = None
        self.config: dict[str, Any] | None = None

    def forward(self, images, targets=None):
        """Find objects, or in training return the losses.

        Parameters
        ----------
        images : list of Tensor or ndarray
            Pictures ``(C, H, W)`` of any sizes, floats in [0, 1]. They are taken to where the network lies, and what is
            returned lies there.
        targets : list of dict, optional
            In training, for each picture its truth, as tensors or arrays: ``boxes`` ``(K, 4)`` (x1, y1, x2, y2) in
            pixels, ``labels`` ``(K,)`` classes from 1, and for Mask R-CNN ``masks`` ``(K, H, W)`` of 0 and 1. K may
            be 0.

        Returns
        -------
        list of dict of Tensor
            In evaluation, for each picture by falling score: ``boxes`` ``(D, 4)`` in its pixels, ``labels`` ``(D,)``,
            ``scores`` ``(D,)`` and for Mask R-CNN ``masks`` ``(D, 1, H, W)``, probabilities.
        dict of Tensor
            In training instead: ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``, ``loss_rpn_box_reg`` and
            for Mask R-CNN ``loss_mask``, whose sum is to become small.

        Raises
        ------
        TypeError, ValueError
            If pictures or their truth do not fit; the error names the picture by its number.
        FloatingPointError
            If the network gives NaN or infinity.
        """
        if self.training:
            return self._losses(images, targets)
        detections = self.detect(images)
        for found, image in zip(detections, images, strict=True):
            if "masks" in found:
                found["masks"] = ops.paste_masks(found["masks"], found["boxes"], tuple(image.shape[1:]))
        return detections

    def detect(self, images):
        """Find objects without laying their masks into pictures of the full size.

        Parameters
        ----------
        images : list of Tensor or ndarray
            Pictures, as `forward` takes them.

        Returns
        -------
        list of dict of Tensor
            As `forward` in evaluation, but ``masks`` are ``(D, 1, M, M)``: probabilities over each box, which
            `tinyseg.ops.paste_masks` lays into the picture.
        """
        images = self._checked(images)
        sizes = [tuple(image.shape[1:]) for image in images]
        batch, _ = self.transform(images)
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        detections, _ = self.roi_heads(features, proposals, batch.image_sizes)
        for found, now, before in zip(detections, batch.image_sizes, sizes, strict=True):
            found["boxes"] = resize_boxes(found["boxes"], now, before)
        like, order = next(self.parameters()), ("boxes", "labels", "scores", "masks")
        return [{key: _beside(like, found[key]) for key in order if key in found} for found in detections]

    def _losses(self, images, targets):
        """Return the losses of a batch."""
        images = self._checked(images)
        targets = check_targets(targets, images, self.num_classes, self.roi_heads.has_mask())
        batch, targets = self.transform(images, targets, self.generator)
        features = self.backbone(batch.tensors)
        proposals, of_proposals = self.rpn(batch, features, targets, self.generator)
        _, losses = self.roi_heads(features, proposals, batch.image_sizes, targets, self.generator)
        return {**losses, **of_proposals}

    @property
    def num_classes(self):
        """Number of classes with the background."""
        return self.roi_heads.box_predictor.cls_score.out_features

    def _checked(self, images):
        """Return pictures as a list of arrays in the type of the network, where it lies."""
        like = next(self.parameters()).array
        arrays = [array_of(image) for image in images]
        if not arrays:
            raise ValueError("images is empty; expected at least one picture")
        for n, array in enumerate(arrays):
            if array.ndim != 3:
                raise ValueError(f"picture {n} has shape {array.shape}; expected (C, H, W)")
            if array.dtype.kind != "f":
                raise TypeError(f"picture {n} has dtype {array.dtype}; expected floats, usually from 0 to 1")
        return [moved(array.astype(like.dtype, copy=False), device_of(like)) for array in arrays]


class FasterRCNN(GeneralizedRCNN):
    """Faster R-CNN (Ren, He, Girshick and Sun, arXiv:1506.01497): the boxes of objects.

    Parameters
    ----------
    backbone : Module
        With ``out_channels`` and ``pooled_names``: see `tinyseg.models.BackboneWithFPN`.
    num_classes : int, optional
        Classes with the background; not with a ``box_predictor``.
    min_size, max_size, image_mean, image_std
        See `tinyseg.models.GeneralizedRCNNTransform`; ImageNet's mean and deviation if left out.
    rpn_anchor_generator : tinyseg.boxes.AnchorGenerator, optional
        If left out: on one map 5 sizes of 3 shapes for each cell, on a pyramid one size of 3 shapes for each level,
        in both cases from 32 to 512 pixels.
    rpn_head : Module, optional
        `RPNHead` if left out.
    rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test, rpn_post_nms_top_n_train, rpn_post_nms_top_n_test : int
        Proposals before and after the suppression.
    rpn_nms_thresh, rpn_fg_iou_thresh, rpn_bg_iou_thresh : float
        Overlaps: see `tinyseg.models.RegionProposalNetwork`.
    rpn_batch_size_per_image, rpn_positive_fraction, rpn_score_thresh
        See `tinyseg.models.RegionProposalNetwork`.
    box_roi_pool, box_head, box_predictor : Module, optional
        If left out: 7x7 bins with 2x2 samples, two linear layers, and a linear layer each for class and box.
    box_score_thresh, box_nms_thresh, box_detections_per_img
        What counts as found: see `tinyseg.models.RoIHeads`.
    box_fg_iou_thresh, box_bg_iou_thresh, box_batch_size_per_image, box_positive_fraction, bbox_reg_weights
        See `tinyseg.models.RoIHeads`.
    roi_op : {"align", "pool"}
        How proposals are pooled, where ``box_roi_pool`` is left out.
    aligned : bool
        For ``roi_op="align"``: see `tinyseg.ops.roi_align`.
    representation_size : int
        Values of a proposal's vector, where ``box_head`` is left out.
    size_divisible : int
        See `tinyseg.models.GeneralizedRCNNTransform`.

    Notes
    -----
    Names and defaults are torchvision's; ``roi_op``, ``aligned`` and ``representation_size`` are additions.
    """

    def __init__(
        self,
        backbone,
        num_classes=None,
        min_size=800,
        max_size=1333,
        image_mean=None,
        image_std=None,
        rpn_anchor_generator=None,
        rpn_head=None,
        rpn_pre_nms_top_n_train=2000,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_train=2000,
        rpn_post_nms_top_n_test=1000,
        rpn_nms_thresh=0.7,
        rpn_fg_iou_thresh=0.7,
        rpn_bg_iou_thresh=0.3,
        rpn_batch_size_per_image=256,
        rpn_positive_fraction=0.5,
        rpn_score_thresh=0.0,
        box_roi_pool=None,
        box_head=None,
        box_predictor=None,
        box_score_thresh=0.05,
        box_nms_thresh=0.5,
        box_detections_per_img=100,
        box_fg_iou_thresh=0.5,
        box_bg_iou_thresh=0.5,
        box_batch_size_per_image=512,
        box_positive_fraction=0.25,
        bbox_reg_weights=None,
        *,
        roi_op="align",
        aligned=False,
        representation_size=1024,
        size_divisible=32,
    ):
        _check_classes(num_classes, box_predictor, "box_predictor")
        pooled = _pooled_names(backbone)
        channels = backbone.out_channels
        if rpn_anchor_generator is None:
            rpn_anchor_generator = default_anchors(len(pooled) == 1)
        if rpn_head is None:
            rpn_head = RPNHead(channels, rpn_anchor_generator.num_anchors_per_location()[0])
        if box_roi_pool is None:
            box_roi_pool = MultiScaleRoIPooling(pooled, 7, 2, roi_op=roi_op, aligned=aligned)
        if box_head is None:
            rows, columns = box_roi_pool.output_size
            box_head = TwoMLPHead(channels * rows * columns, representation_size)
        if box_predictor is None:
            box_predictor = FastRCNNPredictor(representation_size, num_classes)
        rpn = RegionProposalNetwork(
            rpn_anchor_generator,
            rpn_head,
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
        )
        roi_heads = RoIHeads(
            box_roi_pool,
            box_head,
            box_predictor,
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
        )
        transform = GeneralizedRCNNTransform(
            min_size,
            max_size,
            IMAGENET_MEAN if image_mean is None else image_mean,
            IMAGENET_STD if image_std is None else image_std,
            size_divisible,
        )
        super().__init__(backbone, rpn, roi_heads, transform)


class MaskRCNN(FasterRCNN):
    """Mask R-CNN (He, Gkioxari, Dollár and Girshick, arXiv:1703.06870): Faster R-CNN, and a mask for every object.

    Parameters
    ----------
    backbone : Module
        As for `FasterRCNN`.
    num_classes : int, optional
        Classes with the background; not with a ``box_predictor`` or ``mask_predictor``.
    *args
        As for `FasterRCNN`.
    mask_roi_pool, mask_head, mask_predictor : Module, optional
        If left out: 14x14 bins with 2x2 samples, four convolutions, and a transposed one that doubles the size.
    mask_channels : int
        Channels of these convolutions, where they are left out.
    roi_op, aligned
        As for `FasterRCNN`, for boxes and masks.
    **kwargs
        As for `FasterRCNN`.
    """

    def __init__(
        self,
        backbone,
        num_classes=None,
        *args,
        mask_roi_pool=None,
        mask_head=None,
        mask_predictor=None,
        mask_channels=256,
        roi_op="align",
        aligned=False,
        **kwargs,
    ):
        _check_classes(num_classes, mask_predictor, "mask_predictor")
        super().__init__(backbone, num_classes, *args, roi_op=roi_op, aligned=aligned, **kwargs)
        if mask_roi_pool is None:
            mask_roi_pool = MultiScaleRoIPooling(_pooled_names(backbone), 14, 2, roi_op=roi_op, aligned=aligned)
        if mask_head is None:
            mask_head = MaskRCNNHeads(backbone.out_channels, (mask_channels,) * 4)
        if mask_predictor is None:
            mask_predictor = MaskRCNNPredictor(mask_channels, mask_channels, num_classes)
        self.roi_heads.mask_roi_pool = mask_roi_pool
        self.roi_heads.mask_head = mask_head
        self.roi_heads.mask_predictor = mask_predictor


def default_anchors(single_level):
    """Return the anchors of the papers, from 32 to 512 pixels.

    Parameters
    ----------
    single_level : bool
        Whether there is one map, with all sizes (15 anchors a cell), or a pyramid with one size for each level.

    Returns
    -------
    tinyseg.boxes.AnchorGenerator
    """
    sizes = (32, 64, 128, 256, 512)
    return box_tools.AnchorGenerator((sizes,) if single_level else tuple((size,) for size in sizes))


def _pooled_names(backbone):
    """Return the names of the maps that objects are pooled from."""
    if not hasattr(backbone, "out_channels"):
        raise ValueError("backbone has no out_channels; expected the number of channels of its maps there")
    return tuple(getattr(backbone, "pooled_names", ("0", "1", "2", "3")))


def _check_classes(num_classes, predictor, name):
    """Raise ValueError unless exactly one of the two says how many classes there are."""
    if (num_classes is None) == (predictor is None):
        raise ValueError(f"num_classes is {num_classes} with {name} {'left out' if predictor is None else 'given'}; "
                         "expected one of the two")  # fmt: skip
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; expected at least 2, the background and one more")


def _beside(tensor, value):
    return value if isinstance(value, Tensor) else tensor_beside(tensor, value)
