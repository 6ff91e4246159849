"""Random changes of a picture and all its objects, alike: flips, quarter turns, scale, brightness, noise.

Every transform is called as ``transform(sample, rng)`` with a `tinyseg.data.Sample` and a ``numpy.random.Generator``,
and returns a new sample. What moves, moves together: the picture, the mask of classes, numbered objects, masks that
overlap, and boxes. New boxes are drawn around the objects' masks; where there are only boxes, they move themselves.
Beyond the border of a picture comes its mean colour and the background: no mirror image, which would show objects
twice.

An object of which less than `MIN_VISIBLE` is left in the picture is dropped from the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinyseg.data import augment
from tinyseg.data.sample import boxes_of, boxes_of_masks

#: The smallest part of an object, of its pixels or of its box's area, that is still an object at the border.
MIN_VISIBLE = 0.1


def _moved(sample, picture, pixels, corners, magnification=1.0):
    """Return the sample with its truth moved, and another picture.

    ``pixels`` moves (..., H, W) arrays of integers or bool, 0 coming from beyond the border; ``corners`` moves boxes,
    also to beyond it; ``magnification`` is of lengths.
    """
    truth = {"mask": sample.mask, "instances": sample.instances}
    truth = {name: None if array is None else pixels(array) for name, array in truth.items()}
    if sample.masks is not None:
        truth["masks"] = pixels(np.asarray(sample.masks, bool))
    if sample.boxes is not None:
        truth["boxes"] = _cut(corners(sample.boxes), *picture.shape[1:])
    moved = replace(sample, picture=picture, areas=None, **truth)
    before, after = _sizes(sample), _sizes(moved)
    if before is not None:
        moved = moved.with_objects((after > 0) & (after >= MIN_VISIBLE * magnification**2 * before))
    if moved.masks is not None:
        return replace(moved, boxes=boxes_of_masks(moved.masks))
    if moved.instances is not None and moved.classes is not None:
        return replace(moved, boxes=boxes_of(moved.instances, len(moved.classes)))
    return moved


def _sizes(sample):
    """Return the pixels of each object, or the areas of the boxes; None where there are no objects."""
    if sample.masks is not None:
        return np.count_nonzero(np.asarray(sample.masks), axis=(1, 2))
    if sample.classes is None:
        return None
    if sample.instances is not None:
        return np.bincount(sample.instances.ravel(), minlength=len(sample.classes) + 1)[1:]
    if sample.boxes is None:
        return None
    x1, y1, x2, y2 = np.asarray(sample.boxes, np.float64).T
    return (x2 - x1) * (y2 - y1)


def _cut(boxes, height, width):
    """Return boxes cut at the border of the picture."""
    return np.clip(boxes, 0, np.array([width, height, width, height])).astype(np.float32)


@dataclass(frozen=True)
class FlipObjects:
    """Mirror left to right and top to bottom, each with a probability of its own.

    Parameters
    ----------
    horizontal, vertical : float
        The probabilities.
    """

    horizontal: float = 0.5
    vertical: float = 0.5

    def __post_init__(self):
        augment.Flip(self.horizontal, self.vertical)  # checks them

    def __call__(self, sample, rng):
        across, down = rng.random(2) < (self.horizontal, self.vertical)
        height, width = sample.picture.shape[1:]

        def pixels(array):
            return np.ascontiguousarray(array[..., :: -1 if down else 1, :: -1 if across else 1])

        def corners(boxes):
            x1, y1, x2, y2 = boxes.T
            if across:
                x1, x2 = width - x2, width - x1
            if down:
                y1, y2 = height - y2, height - y1
            return np.stack([x1, y1, x2, y2], axis=1)

        return _moved(sample, pixels(sample.picture), pixels, corners)


@dataclass(frozen=True)
class TurnObjects:
    """Turn by 0, 90, 180 or 270 degrees, each as likely; height and width change places."""

    def __call__(self, sample, rng):
        turns = int(rng.integers(4))

        def pixels(array):
            return np.ascontiguousarray(np.rot90(array, turns, (-2, -1)))

        def corners(boxes):
            x1, y1, x2, y2 = boxes.T
            sides = sample.picture.shape[1:]
            for turn in range(turns):  # each anticlockwise: what was at the right comes to the top
                width = sides[1 - turn % 2]
                x1, y1, x2, y2 = y1, width - x2, y2, width - x1
            return np.stack([x1, y1, x2, y2], axis=1)

        return _moved(sample, pixels(sample.picture), pixels, corners)


@dataclass(frozen=True)
class ZoomObjects:
    """Magnify by a random factor; what is then too large is cut at a random place, what is too small gets a margin.

    The margin has the mean colour of the picture. The picture is read bilinearly, the truth at the nearest pixel.

    Parameters
    ----------
    scale : (float, float)
        The smallest and the largest magnification; small and large ones are as likely.
    size : int or (int, int), optional
        Height and width of the result, in pixels; without it, those of the picture.
    """

    scale: tuple = (0.8, 1.25)
    size: int | tuple | None = None

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high < np.inf:
            raise ValueError(f"scale is {self.scale!r}; expected (smallest, largest), above 0")
        if self.size is not None:
            augment.Crop(self.size)  # checks it

    def __call__(self, sample, rng):
        magnification = float(np.exp(rng.uniform(*np.log(self.scale))))
        sides = sample.picture.shape[1:]
        size = self.size if self.size is not None else sides
        size = size if isinstance(size, (tuple, list)) else (size, size)
        starts = []
        for side, new in zip(sides, size, strict=True):
            room = round(magnification * side) - new  # below 0: a margin
            starts.append(int(rng.integers(min(room, 0), max(room, 0) + 1)))
        # pixel y of the result covers (y + start) / magnification to (y + start + 1) / magnification of the picture
        centres = [(np.arange(new) + start + 0.5) / magnification for new, start in zip(size, starts, strict=True)]
        nearest = [np.floor(centre).astype(np.intp) for centre in centres]
        inside = [(index >= 0) & (index < side) for index, side in zip(nearest, sides, strict=True)]
        rows, columns = (np.clip(index, 0, side - 1) for index, side in zip(nearest, sides, strict=True))
        here = inside[0][:, None] & inside[1]

        def pixels(array):
            taken = array[..., rows[:, None], columns]
            taken[..., ~here] = 0
            return taken

        def corners(boxes):
            return boxes * magnification - np.array([starts[1], starts[0]] * 2)

        y, x = (
            np.clip(centre - 0.5, 0, side - 1).astype(np.float32) for centre, side in zip(centres, sides, strict=True)
        )
        picture, _ = augment.resample(sample.picture, None, *np.meshgrid(y, x, indexing="ij"))
        picture[:, ~here] = sample.picture.mean(axis=(1, 2))[:, None]
        return _moved(sample, picture, pixels, corners, magnification)


@dataclass(frozen=True)
class ChangePicture:
    """Change the values of a picture; its objects stay where they are.

    Parameters
    ----------
    transform : callable
        One of `tinyseg.data.augment`'s transforms of value: `Brightness`, `Contrast`, `Noise`.
    """

    transform: Callable

    def __call__(self, sample, rng):
        return replace(sample, picture=self.transform(sample.picture, None, rng)[0])


@dataclass(frozen=True)
class ComposeObjects:
    """Apply transforms one after another, with one generator.

    Parameters
    ----------
    transforms : sequence of callable
        Each called as ``transform(sample, rng)``.
    """

    transforms: tuple

    def __init__(self, transforms):
        object.__setattr__(self, "transforms", tuple(transforms))

    def __call__(self, sample, rng):
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


def detection_augmentation(kind, size=None):
    """Return the augmentation of that name for training a detector.

    Parameters
    ----------
    kind : {"turns", "strong", "photo", "none"}
        ``"turns"``: flips and quarter turns, for pictures without an up and down, as under a microscope.
        ``"strong"``: these, magnified by 0.8 to 1.25, and slight changes of brightness, contrast and noise.
        ``"photo"``: as strong, but what is up stays up: flips from left to right only.
        ``"none"``: nothing is changed.
    size : int or (int, int), optional
        Height and width of every picture, in pixels: a random part of a larger one, with a margin around a smaller
        one. Without it, pictures keep their size.

    Returns
    -------
    ComposeObjects
        Called as ``augment(sample, rng)``.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    place = {
        "turns": [FlipObjects(), TurnObjects()],
        "strong": [FlipObjects(), TurnObjects(), ZoomObjects(size=size)],
        "photo": [FlipObjects(vertical=0.0), ZoomObjects(size=size)],
        "none": [],
    }
    if kind not in place:
        raise ValueError(f"augment is {kind!r}; expected one of 'turns', 'strong', 'photo', 'none'")
    transforms = place[kind]
    if kind in ("strong", "photo"):
        values = augment.Brightness(), augment.Contrast(), augment.Noise()
        return ComposeObjects([*transforms, *(ChangePicture(value) for value in values)])
    return ComposeObjects(transforms if size is None else [ZoomObjects((1.0, 1.0), size), *transforms])
