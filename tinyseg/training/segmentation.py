"""Training of a network that gives each pixel a class: batches of crops, cross entropy and Dice, mean Dice and IoU."""

import numpy as np

from tinyseg import ops
from tinyseg.backend import device_of, moved
from tinyseg.data import Batches
from tinyseg.data.augment import Compose, Crop, Flip, Rotate90, default_augmentation
from tinyseg.evaluation import evaluate
from tinyseg.tensor import Tensor
from tinyseg.training.data_source import Source
from tinyseg.training.options import Options
from tinyseg.training.task import Score, Task

SCORES = (
    Score("dice", "Dice", "#1a7f4b"),
    Score("iou", "IoU", "#b5651d"),
    Score("pixel_error", "pixel error", "#a83232"),
)


class SegmentationTask(Task):
    """A `tinyseg.models.UNet` in training; see `Task`.

    Parameters
    ----------
    model : tinyseg.models.UNet
        Its channels and classes are what the data must have.
    train, val : data set
        Pictures with masks.
    options : Options
        The run's.
    tile : int, "auto" or "none"
        Tiles for validation; see `tinyseg.evaluation.predict`.

    Raises
    ------
    ValueError
        If the data do not fit the model.
    """

    options_class = Options
    scores = SCORES
    best = "dice"

    def __init__(self, model, train, val, options, tile="auto"):
        super().__init__(model, train, val, options)
        _check("training", model, train)
        if self.val is not None:
            _check("validation", model, self.val)
        self.tile = tile
        batches = Batches(
            train,
            options.batch_size,
            seed=options.seed,
            augment=make_augmentation(options.augment, options.crop),
            normalisation=options.normalisation,
            num_classes=model.out_channels,
        )
        self.source = Source(batches, next(model.parameters()).device, sent=2)

    def losses(self, batch, step):
        """Return cross entropy, with Dice where the options want it."""
        x, target = batch
        expected = self.model.in_channels
        if x.shape[1] != expected:
            raise ValueError(f"training pictures have {x.shape[1]} channels; the model expects {expected}")
        return {"loss": segmentation_loss(self.model.logits(Tensor(x)), target, self.options.dice_weight)}

    def validate(self, before):
        """Return the mean scores over the validation pictures, each at its full size."""
        if self.val is None:
            return dict.fromkeys(score.name for score in SCORES)
        options = {"tile": self.tile, "normalisation": self.options.normalisation}
        return evaluate(self.model, self.val, before_tile=lambda done, tiles: before(0, 0), **options).mean()

    def model_settings(self):
        """Return channels and widths."""
        return {name: getattr(self.model, name) for name in ("in_channels", "out_channels", "widths")}

    def arrays(self, sample):
        """Return picture and mask."""
        return sample.picture, sample.mask


def _check(what, model, dataset):
    """Check the first picture of a data set against the model."""
    if len(dataset) == 0:
        raise ValueError(f"the {what} set is empty; expected at least one picture")
    sample = dataset[0]
    if sample.mask is None:
        raise ValueError(f"{what} picture {sample.name} has no mask")
    if sample.picture.shape[0] != model.in_channels:
        raise ValueError(
            f"{what} picture {sample.name} has {sample.picture.shape[0]} channels; expected {model.in_channels}, as "
            "the model has"
        )


def make_augmentation(name, crop):
    """Return the augmentation of that name.

    Parameters
    ----------
    name : {"turns", "strong", "photo", "none"}
        ``"turns"``: random crops, flipped and turned by quarter turns, for pictures without an up and down.
        ``"strong"``: any turn, elastic deformation, brightness, contrast and noise too.
        ``"photo"``: as strong, but what is up stays up.
        ``"none"``: random crops only.
    crop : int
        Side of the crops in pixels.

    Returns
    -------
    Compose

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name == "turns":
        return Compose([Crop(crop), Flip(), Rotate90()])
    if name == "none":
        return Compose([Crop(crop)])
    if name in ("strong", "photo"):
        return default_augmentation(crop, upright=name == "photo")
    raise ValueError(f"augment is {name!r}; expected one of 'turns', 'strong', 'photo', 'none'")


def segmentation_loss(logits, target, dice_weight=0.0):
    """Return the loss of a batch: cross entropy, plus Dice where it is wanted.

    Parameters
    ----------
    logits : Tensor
        (N, classes, H, W): the model's scores.
    target : ndarray or DeviceArray
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
    classes = np.arange(logits.shape[1]).reshape(1, -1, 1, 1)
    target = target.reshape(len(target), 1, *target.shape[1:])
    truth = (target == moved(classes, device_of(target))).astype(logits.dtype)
    p = ops.softmax(logits, dim=1)
    both = (p * Tensor(truth)).sum((0, 2, 3))
    sizes = p.sum((0, 2, 3)) + Tensor(truth.sum((0, 2, 3)))
    return 1.0 - ((both * 2.0 + 1.0) / (sizes + 1.0)).mean()
