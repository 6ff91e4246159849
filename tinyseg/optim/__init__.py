"""Optimisers, learning-rate schedules and gradient clipping, with PyTorch's names."""

from tinyseg.optim.adam import Adam, AdamW
from tinyseg.optim.clip import clip_grad_norm_, clip_grad_value_
from tinyseg.optim.optimizer import Optimizer
from tinyseg.optim.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)
from tinyseg.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
