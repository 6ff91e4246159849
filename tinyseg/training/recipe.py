"""What the options of a run stand for: its loss, its optimiser, its learning rate."""

import numpy as np

from tinyseg import ops, optim
from tinyseg.tensor import Tensor


def loss(logits, target, dice_weight=0.0):
    """Return the loss of a batch: cross entropy, plus Dice where it is wanted.

    Parameters
    ----------
    logits : Tensor
        (N, classes, H, W): the model's scores.
    target : ndarray
        (N, 1, H, W) of 0 and 1 for one class, (N, H, W) of class numbers for more.
    dice_weight : float
        Factor of the Dice loss: over the whole batch for one class (`tinyseg.ops.dice_loss`), else `dice_of_classes`.

    Returns
    -------
    Tensor
        A single value.
    """
    binary = logits.shape[1] == 1
    value = ops.binary_cross_entropy_with_logits(logits, target) if binary else ops.cross_entropy(logits, target)
    if dice_weight:
        dice = ops.dice_loss(logits, target) if binary else dice_of_classes(logits, target)
        value = value + dice * dice_weight
    return value


def dice_of_classes(logits, target):
    """Return 1 minus the mean over the classes of the Dice of their softmax probabilities.

    Parameters
    ----------
    logits : Tensor
        (N, classes, H, W).
    target : ndarray
        (N, H, W) class numbers.

    Returns
    -------
    Tensor
        A single value; areas are summed over the batch, with 1 added above and below the bar.
    """
    truth = (target[:, None] == np.arange(logits.shape[1])[:, None, None]).astype(logits.dtype)
    p = ops.softmax(logits, dim=1)
    both = (p * Tensor(truth)).sum((0, 2, 3))
    sizes = p.sum((0, 2, 3)) + Tensor(truth.sum((0, 2, 3)))
    return 1.0 - ((both * 2.0 + 1.0) / (sizes + 1.0)).mean()


def make_optimiser(model, options):
    """Return the optimiser that `Options` names, over all parameters of a model."""
    settings = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.optimiser == "sgd":
        return optim.SGD(model.parameters(), momentum=0.9, **settings)
    return {"adam": optim.Adam, "adamw": optim.AdamW}[options.optimiser](model.parameters(), **settings)


def make_schedule(optimiser, options):
    """Return the learning-rate schedule that `Options` names, or None for a constant rate."""
    if options.schedule == "constant":
        return None
    return optim.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)


def checked_interval(value):
    """Return ``checkpoint_every`` of `tinyseg.training.fit`, a pair or None; anything else is a ValueError."""
    if value is None:
        return None
    kind, length = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
    if kind not in ("steps", "seconds") or not isinstance(length, (int, float)) or length <= 0:
        raise ValueError(f"checkpoint_every is {value!r}; expected ('steps', n), ('seconds', s) or None")
    return kind, length
