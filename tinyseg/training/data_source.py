"""Where training takes its batches from, and how it knows a data set again."""

import hashlib

import numpy as np

from tinyseg.data import Batches
from tinyseg.data.augment import Compose, Crop, Flip, Rotate90, default_augmentation


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


class Source:
    """The batches of a run, the next ones made in the background.

    Parameters
    ----------
    model : tinyseg.models.UNet
        Its channels and classes are what the data must have.
    dataset : data set
        Pictures with masks.
    options : Options
        The run's.

    Raises
    ------
    ValueError
        If the data do not fit the model.
    """

    def __init__(self, model, dataset, options):
        _check("training", model, dataset)
        self.dataset = dataset
        self.batches = Batches(
            dataset,
            options.batch_size,
            seed=options.seed,
            augment=make_augmentation(options.augment, options.crop),
            normalisation=options.normalisation,
            num_classes=model.out_channels,
        )
        self._channels = model.in_channels
        self._iterator, self._step = None, None

    def batch(self, step):
        """Return pictures (N, C, H, W) and masks of batch ``step``; quickest one after another."""
        if self._iterator is None or step != self._step:
            self.close()
            self._iterator = self.batches.iterate(start=step)
        self._step = step + 1
        pictures, masks = next(self._iterator)
        if pictures.shape[1] != self._channels:
            raise ValueError(f"training pictures have {pictures.shape[1]} channels; the model expects {self._channels}")
        return pictures, masks

    def close(self):
        """Stop making batches."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def checked_validation(model, dataset):
    """Return a validation set that fits the model, or None for none and for an empty one."""
    if dataset is None or len(dataset) == 0:
        return None
    _check("validation", model, dataset)
    return dataset


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


def names(dataset):
    """Return the names of a data set's pictures, or their numbers: a list of str."""
    return [str(name) for name in getattr(dataset, "names", None) or range(len(dataset))]


def fingerprint(dataset, most=32):
    """Return a line of text by which to know a data set again.

    Parameters
    ----------
    dataset : data set or None
        Pictures with masks.
    most : int
        Up to this many pictures, evenly spread, are read for the checksum; of the others only the names count.

    Returns
    -------
    str
        Such as ``"16 pictures (checksum 3fa2c19b)"``.
    """
    if dataset is None or len(dataset) == 0:
        return "none"
    digest = hashlib.sha256("\n".join(names(dataset)).encode())
    for i in np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)):
        sample = dataset[int(i)]
        for array in (sample.picture, sample.mask):
            if array is not None:
                digest.update(f"{array.shape}{array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return f"{len(dataset)} pictures (checksum {digest.hexdigest()[:8]})"
