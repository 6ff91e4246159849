"""The losses as layers. See the functions of ``tinyseg.ops`` for their arguments."""

from tinyseg import ops
from tinyseg.nn.module import Module
from tinyseg.tensor import Tensor


class _Loss(Module):
    """What the losses share: optional weights, kept as buffers so that ``to`` moves them."""

    def __init__(self, reduction, **weights):
        super().__init__()
        self.reduction = reduction
        for name, weight in weights.items():
            self.register_buffer(name, None if weight is None else Tensor(weight))


class BCELoss(_Loss):
    """Binary cross entropy of probabilities: ``ops.binary_cross_entropy``."""

    def __init__(self, weight=None, *, reduction="mean"):
        super().__init__(reduction, weight=weight)

    def forward(self, input, target):
        """Return the loss."""
        return ops.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of scores: ``ops.binary_cross_entropy_with_logits``."""

    def __init__(self, weight=None, *, reduction="mean", pos_weight=None):
        super().__init__(reduction, weight=weight, pos_weight=pos_weight)

    def forward(self, input, target):
        """Return the loss."""
        return ops.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class CrossEntropyLoss(_Loss):
    """Cross entropy of scores per class: ``ops.cross_entropy``."""

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction, weight=weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input, target):
        """Return the loss."""
        return ops.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class SmoothL1Loss(_Loss):
    """Parabola near 0, line beyond: ``ops.smooth_l1_loss``."""

    def __init__(self, *, reduction="mean", beta=1.0):
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input, target):
        """Return the loss."""
        return ops.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class SigmoidFocalLoss(_Loss):
    """Focal loss of scores: ``ops.sigmoid_focal_loss``. The mean is the default here."""

    def __init__(self, alpha=0.25, gamma=2.0, *, reduction="mean"):
        super().__init__(reduction)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, input, target):
        """Return the loss."""
        return ops.sigmoid_focal_loss(input, target, self.alpha, self.gamma, self.reduction)


class DiceLoss(_Loss):
    """Dice loss of scores: ``ops.dice_loss``."""

    def __init__(self, smooth=1.0, *, per_sample=False, reduction="mean"):
        super().__init__(reduction)
        self.smooth, self.per_sample = smooth, per_sample

    def forward(self, input, target):
        """Return the loss."""
        return ops.dice_loss(input, target, self.smooth, per_sample=self.per_sample, reduction=self.reduction)
