"""Normalisation by the statistics of a batch, or by fixed ones, with PyTorch's and torchvision's names."""

import numpy as np

from tinyseg import ops
from tinyseg.nn import init
from tinyseg.nn.checks import channels
from tinyseg.nn.module import Module, Parameter
from tinyseg.tensor import Tensor


class _Normalisation(Module):
    """What both normalisations have in common: a subclass says in ``_apply`` what they hand to an operator."""

    def _apply(self, operator, x, **more):
        raise NotImplementedError

    def forward(self, x):
        """Return ``(N, C, H, W)`` normalised: by the batch in training, by the running statistics in evaluation."""
        return self._apply(ops.batch_norm, x)

    def relu(self, x, residual=None):
        """Return ``relu(self(x) + residual)``: the same numbers in less time and memory.

        Parameters
        ----------
        x : Tensor
            ``(N, C, H, W)``.
        residual : Tensor, optional
            What is added before the ReLU, of the same shape.

        Returns
        -------
        Tensor
            ``(N, C, H, W)``.

        Notes
        -----
        Where a forward hook wants to see what comes out of the normalisation itself, the operators run one by one.
        """
        if self._hooks:
            y = self(x)
            return ops.relu(y if residual is None else y + residual)
        return self._apply(ops.batch_norm_relu, x, residual=residual)


class BatchNorm2d(_Normalisation):
    """Batch normalisation: each channel to mean 0 and variance 1, then scaled and shifted (Ioffe and Szegedy, 2015).

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the newest batch in the running statistics; None gives every batch the same weight.
    affine : bool
        Whether to scale and shift by trained numbers.
    track_running_stats : bool
        Whether to keep running statistics, and use them in evaluation.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_features,)``.
    running_mean, running_var : Tensor or None
        ``(num_features,)``, buffers.
    num_batches_tracked : Tensor or None
        A single int64, a buffer.
    """

    optional_keys = ("num_batches_tracked",)

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.num_features = channels("num_features", num_features)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name in ("weight", "bias"):
            self.register_parameter(name, Parameter(np.empty(num_features, np.float32)) if affine else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, Tensor(np.empty(num_features, np.float32)) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", Tensor(np.array(0, np.int64)) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self):
        """Forget the batches seen: mean 0, variance 1."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self):
        """Scale 1, shift 0, and no batch seen."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def _apply(self, operator, x, **more):
        tracking = self.training and self.running_mean is not None
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / (self.num_batches_tracked.item() + 1) if tracking else 0.0
        y = operator(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=momentum,
            eps=self.eps,
            **more,
        )
        if tracking:
            self.num_batches_tracked += 1
        return y

    def extra_repr(self):
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class FrozenBatchNorm2d(_Normalisation):
    """Batch normalisation by fixed statistics, with a fixed scale and shift: nothing here is trained.

    Detectors freeze the normalisation of a pretrained backbone, since their batches of a few pictures give poor
    statistics.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance. The weights that torchvision published for Faster and Mask R-CNN with a ResNet-50 in
        2019 were trained with 0; later ones with 1e-5.

    Attributes
    ----------
    weight, bias, running_mean, running_var : Tensor
        ``(num_features,)``, buffers.

    Notes
    -----
    As ``torchvision.ops.FrozenBatchNorm2d``. A state dict of `BatchNorm2d` fits: its ``num_batches_tracked`` is passed
    over.
    """

    ignored_keys = ("num_batches_tracked",)

    def __init__(self, num_features, eps=1e-5):
        super().__init__()
        self.num_features = channels("num_features", num_features)
        self.eps = eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, Tensor(np.full(num_features, value, np.float32)))

    def _apply(self, operator, x, **more):
        return operator(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps, **more)

    def extra_repr(self):
        """Return the settings."""
        return f"{self.num_features}, eps={self.eps}"
