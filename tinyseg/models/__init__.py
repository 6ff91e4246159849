"""The networks."""

from tinyseg.models.detectors import FasterRCNN, GeneralizedRCNN, MaskRCNN
from tinyseg.models.factories import (
    faster_rcnn,
    fasterrcnn_resnet50_fpn,
    from_config,
    mask_rcnn,
    maskrcnn_resnet50_fpn,
    resnet_backbone,
)
from tinyseg.models.fpn import BackboneWithFPN, FeaturePyramidNetwork, SingleLevelBackbone, freeze_layers
from tinyseg.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from tinyseg.models.roi_heads import RoIHeads
from tinyseg.models.roi_pooling import MultiScaleRoIPooling
from tinyseg.models.rpn import RegionProposalNetwork
from tinyseg.models.transform import GeneralizedRCNNTransform, ImageList
from tinyseg.models.unet import UNet

__all__ = [
    "BackboneWithFPN",
    "FasterRCNN",
    "FeaturePyramidNetwork",
    "GeneralizedRCNN",
    "GeneralizedRCNNTransform",
    "ImageList",
    "MaskRCNN",
    "MultiScaleRoIPooling",
    "RegionProposalNetwork",
    "ResNet",
    "RoIHeads",
    "SingleLevelBackbone",
    "UNet",
    "faster_rcnn",
    "fasterrcnn_resnet50_fpn",
    "freeze_layers",
    "from_config",
    "mask_rcnn",
    "maskrcnn_resnet50_fpn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet_backbone",
]
