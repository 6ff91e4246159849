"""Random changes of a picture and its mask, alike: turns, crops, deformations, brightness, noise.

Every transform is called as ``transform(picture, mask, rng)`` with a picture (C, H, W) float32, a mask (H, W) of
integers or None, and a ``numpy.random.Generator``; it returns a new pair and leaves its arguments alone. Pictures are
read between pixels bilinearly, masks at the nearest pixel; beyond the border both are mirrored about the border's
pixels. Amounts of brightness and noise count in standard deviations of the picture at hand, so that they mean the
same for pictures in [0, 1], for normalised ones and for floats of any range.
"""

from dataclasses import dataclass

import numpy as np

from tinyseg.data.smooth import smooth_field

# ---- sampling ------------------------------------------------------------------------------------------------------


def mirror(index, length):
    """Return indices mirrored into 0 .. ``length - 1`` about the first and last one, as in ``d c b a b c d c b a``.

    Parameters
    ----------
    index : ndarray
        Integers, any.
    length : int
        Number of elements, at least 1.

    Returns
    -------
    ndarray
        Integers of the same shape.
    """
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def resample(picture, mask, rows, columns):
    """Read a picture and its mask at given places.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float32.
    mask : ndarray or None
        (H, W) integers.
    rows, columns : ndarray
        (h, w) float32: where each pixel of the result lies in the picture. Pixel centres are whole numbers, from 0.

    Returns
    -------
    picture : ndarray
        (C, h, w) float32, bilinear.
    mask : ndarray or None
        (h, w), nearest pixel.
    """
    height, width = picture.shape[1:]
    top, left = np.floor(rows), np.floor(columns)
    down, across = rows - top, columns - left
    top, left = top.astype(np.intp), left.astype(np.intp)
    bottom, right = top + 1, left + 1
    if (
        top.min(initial=0) < 0
        or left.min(initial=0) < 0
        or bottom.max(initial=0) >= height
        or right.max(initial=0) >= width
    ):
        top, bottom = mirror(top, height), mirror(bottom, height)
        left, right = mirror(left, width), mirror(right, width)
    top *= width
    bottom *= width
    corners = top + left, top + right, bottom + left, bottom + right
    changed = np.empty((picture.shape[0], *rows.shape), picture.dtype)
    for c, plane in enumerate(np.ascontiguousarray(picture).reshape(picture.shape[0], -1)):
        above, above_right, below, below_right = (plane.take(corner) for corner in corners)
        above += across * (above_right - above)
        below += across * (below_right - below)
        below -= above
        below *= down
        np.add(above, below, out=changed[c])
    if mask is None:
        return changed, None
    nearest = np.where(down < 0.5, top, bottom) + np.where(across < 0.5, left, right)
    return changed, mask.take(nearest)


def _places(size, centre, degrees=0.0, scale=1.0):
    """Return rows and columns of a window of ``size`` about ``centre``, turned and (above 1) taking in more."""
    dy = scale * (np.arange(size[0], dtype=np.float32)[:, None] - np.float32((size[0] - 1) / 2))
    dx = scale * (np.arange(size[1], dtype=np.float32)[None] - np.float32((size[1] - 1) / 2))
    cos, sin = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    return np.float32(centre[0]) + cos * dy - sin * dx, np.float32(centre[1]) + sin * dy + cos * dx


def _window(picture, mask, top, left, size):
    """Cut out a window, mirrored where it reaches beyond the picture."""
    height, width = picture.shape[1:]
    if top >= 0 and left >= 0 and top + size[0] <= height and left + size[1] <= width:
        here = slice(top, top + size[0]), slice(left, left + size[1])
        return picture[(slice(None), *here)].copy(), None if mask is None else mask[here].copy()
    rows = mirror(np.arange(top, top + size[0]), height)[:, None]
    columns = mirror(np.arange(left, left + size[1]), width)[None]
    return picture[:, rows, columns], None if mask is None else mask[rows, columns]


def _random_corner(picture, size, rng):
    """Return the top left corner of a random window inside the picture, or of the centred one if it is too large."""
    room = [have - want for have, want in zip(picture.shape[1:], size, strict=True)]
    return [int(rng.integers(r + 1)) if r >= 0 else r // 2 for r in room]


# ---- checks --------------------------------------------------------------------------------------------------------


def _pair(name, size):
    """Return a size as (height, width)."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or any(not isinstance(n, (int, np.integer)) or n < 1 for n in pair):
        raise ValueError(f"{name} is {size!r}; expected one or two whole numbers of at least 1")
    return int(pair[0]), int(pair[1])


def _amount(name, value, low=0.0, high=np.inf):
    """Check that a number is in a range."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected {low:g} to {high:g}")


# ---- transforms of place -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """Mirror left to right and top to bottom, each with a probability of its own.

    Parameters
    ----------
    horizontal, vertical : float
        The probabilities.
    """

    horizontal: float = 0.5
    vertical: float = 0.5

    def __post_init__(self):
        _amount("horizontal", self.horizontal, 0, 1)
        _amount("vertical", self.vertical, 0, 1)

    def __call__(self, picture, mask, rng):
        across, down = rng.random(2) < (self.horizontal, self.vertical)
        step = (slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1))
        return picture[(slice(None), *step)].copy(), None if mask is None else mask[step].copy()


@dataclass(frozen=True)
class Rotate90:
    """Turn by 0, 90, 180 or 270 degrees, each as likely; a picture that is not square by 0 or 180."""

    def __call__(self, picture, mask, rng):
        square = picture.shape[1] == picture.shape[2]
        turns = int(rng.integers(4)) if square else 2 * int(rng.integers(2))
        turned = np.ascontiguousarray(np.rot90(picture, turns, (1, 2)))
        return turned, None if mask is None else np.ascontiguousarray(np.rot90(mask, turns))


@dataclass(frozen=True)
class Rotate:
    """Turn about the centre by a random angle; the size stays.

    Parameters
    ----------
    degrees : float
        The largest angle either way; above 0 is clockwise.
    """

    degrees: float = 180.0

    def __post_init__(self):
        _amount("degrees", self.degrees, 0, 360)

    def __call__(self, picture, mask, rng):
        size = picture.shape[1:]
        angle = rng.uniform(-self.degrees, self.degrees)
        return resample(picture, mask, *_places(size, [(n - 1) / 2 for n in size], angle))


@dataclass(frozen=True)
class Crop:
    """Cut out a window at a random place; a smaller picture is mirrored up to its size.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the window, in pixels.
    """

    size: int | tuple

    def __post_init__(self):
        _pair("size", self.size)

    def __call__(self, picture, mask, rng):
        size = _pair("size", self.size)
        top, left = _random_corner(picture, size, rng)
        return _window(picture, mask, top, left, size)


@dataclass(frozen=True)
class Elastic:
    """Deform smoothly: random displacements on a coarse grid, cubic curves between.

    After Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", section 3.1:
    there a standard deviation of 10 pixels on a grid of 3 x 3 points over pictures of 512 x 512.

    Parameters
    ----------
    strength : float
        Standard deviation of the displacement, in pixels. Above about a quarter of the spacing, the picture folds
        over.
    spacing : float
        Distance of the grid's points, in pixels.
    """

    strength: float = 8.0
    spacing: float = 64.0

    def __post_init__(self):
        _amount("strength", self.strength)
        _amount("spacing", self.spacing, 2)

    def __call__(self, picture, mask, rng):
        size = picture.shape[1:]
        rows, columns = _places(size, [(n - 1) / 2 for n in size])
        dy, dx = np.float32(self.strength) * smooth_field(rng, size, self.spacing, 2)
        return resample(picture, mask, rows + dy, columns + dx)


@dataclass(frozen=True)
class WarpedCrop:
    """Cut out a random window, turned, scaled and deformed, in one step: only its own pixels are computed.

    Beyond the window's border comes what lies there in the picture, not a mirror image, as long as the picture
    reaches.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the result, in pixels.
    degrees : float
        The largest angle either way.
    scale : (float, float)
        The smallest and the largest magnification.
    strength, spacing : float
        As for `Elastic`; a strength of 0 deforms nothing.
    probability : float
        How often this happens; else the window is cut out as it is.
    """

    size: int | tuple
    degrees: float = 180.0
    scale: tuple = (0.8, 1.25)
    strength: float = 5.0
    spacing: float = 64.0
    probability: float = 0.8

    def __post_init__(self):
        _pair("size", self.size)
        _amount("degrees", self.degrees, 0, 360)
        _amount("strength", self.strength)
        _amount("spacing", self.spacing, 2)
        _amount("probability", self.probability, 0, 1)
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale is {self.scale!r}; expected (smallest, largest), above 0")

    def __call__(self, picture, mask, rng):
        size = _pair("size", self.size)
        top, left = _random_corner(picture, size, rng)
        if rng.random() >= self.probability:
            return _window(picture, mask, top, left, size)
        centre = top + (size[0] - 1) / 2, left + (size[1] - 1) / 2
        angle = rng.uniform(-self.degrees, self.degrees)
        magnification = np.exp(rng.uniform(*np.log(self.scale)))
        rows, columns = _places(size, centre, angle, np.float32(1 / magnification))
        if self.strength > 0:
            dy, dx = np.float32(self.strength) * smooth_field(rng, size, self.spacing, 2)
            rows, columns = rows + dy, columns + dx
        return resample(picture, mask, rows, columns)


# ---- transforms of value -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brightness:
    """Make a picture brighter or darker by a random constant.

    Parameters
    ----------
    amount : float
        The largest constant either way, in standard deviations of the picture.
    """

    amount: float = 0.3

    def __post_init__(self):
        _amount("amount", self.amount)

    def __call__(self, picture, mask, rng):
        return picture + np.float32(rng.uniform(-self.amount, self.amount) * picture.std()), mask


@dataclass(frozen=True)
class Contrast:
    """Stretch values about the picture's mean by a random factor.

    Parameters
    ----------
    amount : float
        The factor lies between ``1 / (1 + amount)`` and ``1 + amount``.
    """

    amount: float = 0.3

    def __post_init__(self):
        _amount("amount", self.amount)

    def __call__(self, picture, mask, rng):
        limit = np.log1p(self.amount)
        factor = np.exp(rng.uniform(-limit, limit))
        return picture * np.float32(factor) + np.float32((1 - factor) * picture.mean()), mask


@dataclass(frozen=True)
class Noise:
    """Add normal noise of a random strength.

    Parameters
    ----------
    amount : float
        The largest standard deviation of the noise, in standard deviations of the picture.
    """

    amount: float = 0.1

    def __post_init__(self):
        _amount("amount", self.amount)

    def __call__(self, picture, mask, rng):
        level = np.float32(rng.uniform(0, self.amount) * picture.std())
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        noise *= level
        noise += picture
        return noise, mask


# ---- together ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compose:
    """Apply transforms one after another, with one generator.

    Parameters
    ----------
    transforms : sequence of callable
        Each called as ``transform(picture, mask, rng)``.
    """

    transforms: tuple

    def __init__(self, transforms):
        object.__setattr__(self, "transforms", tuple(transforms))

    def __call__(self, picture, mask, rng):
        for transform in self.transforms:
            picture, mask = transform(picture, mask, rng)
        return picture, mask


def default_augmentation(crop, upright=False):
    """Return the augmentation that suits most pictures.

    Parameters
    ----------
    crop : int or (int, int)
        Height and width of the result, in pixels. Should be a multiple of what the network halves to.
    upright : bool
        False for pictures without an up and down, as under a microscope: any turn and flip. True for photos: small
        turns, and flips from left to right.

    Returns
    -------
    Compose
        A warped crop, flips, and slight changes of brightness, contrast and noise.
    """
    if upright:
        place = [WarpedCrop(crop, degrees=10.0), Flip(vertical=0.0)]
    else:
        place = [WarpedCrop(crop), Flip(), Rotate90()]
    return Compose([*place, Brightness(), Contrast(), Noise()])
