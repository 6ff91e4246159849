"""Layers, containers, losses and first values, with PyTorch's names."""

from tinyseg.nn import init
from tinyseg.nn.containers import ModuleDict, ModuleList, Sequential
from tinyseg.nn.layers import (
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Upsample,
)
from tinyseg.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DiceLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
)
from tinyseg.nn.module import Module, Parameter
from tinyseg.nn.normalization import BatchNorm2d, FrozenBatchNorm2d

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "DiceLoss",
    "Flatten",
    "FrozenBatchNorm2d",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "Softmax",
    "Upsample",
    "init",
]
