"""Pictures made up from a seed, with their truth: cells under a microscope, and geometric shapes."""

import operator
from dataclasses import replace

import numpy as np

from tinyseg.data.sample import Sample, boxes_of
from tinyseg.data.smooth import gaussian_blur, smooth_field

#: Classes of `shapes`; 0 is the background.
SHAPE_CLASSES = ("background", "disc", "rectangle", "triangle")


def cells(size=256, seed=0, *, radius=(11, 24), coverage=0.6, noise=0.05, blur=0.8, truth="cells"):
    """Make a picture like one from a light microscope: cells with membranes and nuclei, some of them touching.

    The background and the cells are textured; light is uneven; the picture is blurred a little, and noisy.

    Parameters
    ----------
    size : int or (int, int)
        Height and width, in pixels; at least 16.
    seed : int, sequence of int or numpy.random.Generator
        Whatever ``numpy.random.default_rng`` takes. The same seed gives the same picture.
    radius : (float, float)
        Smallest and largest radius of a cell, in pixels.
    coverage : float
        About which part of the picture cells cover, from 0 to 0.8.
    noise : float
        Standard deviation of the noise; the picture's range is 0 to 1.
    blur : float
        Standard deviation of the blur, in pixels.
    truth : {"cells", "membranes"}
        What is class 1 in the mask.

    Returns
    -------
    Sample
        ``picture`` (1, H, W); ``mask`` of 0 and 1; ``instances``, ``classes`` (all 1) and ``boxes`` per cell.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    size = _size(size)
    low, high = _range("radius", radius, 3)
    _check("coverage", coverage, 0, 0.8)
    _check("noise", noise, 0, 1)
    _check("blur", blur, 0, 20)
    if truth not in ("cells", "membranes"):
        raise ValueError(f"truth is {truth!r}; expected 'cells' or 'membranes'")
    rng = np.random.default_rng(seed)
    field = _CellField(size)
    for centre, r in _scatter(rng, size, low, high, coverage):
        field.add(rng, centre, r)
    label, count = _renumber(np.where(field.nearest < 1, field.owner, 0), smallest=25)
    depth = field.depth()
    membrane = (label > 0) & (depth < 2.5)
    picture = _paint_cells(rng, label, count, depth, field)
    picture = gaussian_blur(picture, blur)
    picture *= 1 + 0.10 * smooth_field(rng, size, max(size) / 1.5)  # uneven light
    picture += np.float32(noise) * rng.standard_normal(size, dtype=np.float32)
    return Sample(
        picture=np.clip(picture, 0, 1)[None],
        mask=(membrane if truth == "membranes" else label > 0).astype(np.uint8),
        instances=label,
        classes=np.ones(count, np.int64),
        boxes=boxes_of(label, count),
        class_names=("background", truth.removesuffix("s")),
    )


def shapes(
    size=256, seed=0, *, count=(4, 9), radius=(14, 44), max_overlap=0.3, channels=3, noise=0.04, names=SHAPE_CLASSES[1:]
):
    """Make a picture of discs, rectangles and triangles, some partly hidden by others, on a textured background.

    Colours and textures are random for each object: only its outline tells its class.

    Parameters
    ----------
    size : int or (int, int)
        Height and width, in pixels; at least 16.
    seed : int, sequence of int or numpy.random.Generator
        Whatever ``numpy.random.default_rng`` takes. The same seed gives the same picture.
    count : (int, int)
        Fewest and most objects. Where they do not fit, there are fewer, but one at least.
    radius : (float, float)
        Smallest and largest distance from an object's centre to its farthest point, in pixels.
    max_overlap : float
        At most which part of any object later ones hide, from 0 to 1.
    channels : {1, 3}
        Grey or RGB.
    noise : float
        Standard deviation of the noise; the picture's range is 0 to 1.
    names : sequence of str
        Which of "disc", "rectangle" and "triangle" occur; class 1 is the first of them.

    Returns
    -------
    Sample
        ``picture`` (C, H, W); ``mask`` with classes from 0 to ``len(names)``; ``instances`` (what is visible of each
        object), ``classes`` and ``boxes``.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    size = _size(size)
    fewest, most = _range("count", count, 1)
    low, high = _range("radius", radius, 3)
    _check("max_overlap", max_overlap, 0, 1)
    _check("noise", noise, 0, 1)
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 1 or 3")
    if not names or not set(names) <= set(_EDGES):
        raise ValueError(f"names is {names!r}; expected some of {', '.join(_EDGES)}")
    rng = np.random.default_rng(seed)
    canvas = _ShapeCanvas(rng, size, channels)
    for _ in range(rng.integers(fewest, most + 1)):
        kind = int(rng.integers(len(names)))
        for _attempt in range(20):
            if canvas.add(rng, _EDGES[names[kind]], kind + 1, rng.uniform(low, high), max_overlap):
                break
    picture = gaussian_blur(canvas.picture, 0.6)
    picture += np.float32(noise) * rng.standard_normal(picture.shape, dtype=np.float32)
    instances, kept = _renumber(canvas.instances, smallest=1)
    classes = np.array(canvas.classes, np.int64)
    mask = np.concatenate([[0], classes]).astype(np.uint8)[instances]
    return Sample(
        picture=np.clip(picture, 0, 1),
        mask=mask,
        instances=instances,
        classes=classes,
        boxes=boxes_of(instances, kept),
        class_names=("background", *names),
    )


class _Synthetic:
    """A data set of ``n`` made-up pictures; picture ``i`` depends on the seed and ``i`` only."""

    def __init__(self, make, n, size, seed, options):
        self._make, self._n, self._options = make, operator.index(n), options
        self.size, self.seed = _size(size), operator.index(seed)
        if self._n < 1 or self.seed < 0:
            raise ValueError(f"n is {n} and seed is {seed}; expected n of 1 or more, seed of 0 or more")
        self.class_names = make(16, 0, **options).class_names  # checks the options at once
        self.num_classes = len(self.class_names)
        self.names = tuple(str(i) for i in range(self._n))

    def __len__(self):
        return self._n

    def __getitem__(self, i):
        index = operator.index(i)
        if not -self._n <= index < self._n:
            raise IndexError(f"picture {i} was asked for; there are {self._n}")
        index %= self._n
        return replace(self._make(self.size, [self.seed, index], **self._options), name=str(index))


class SyntheticCells(_Synthetic):
    """A data set of made-up microscope pictures.

    Parameters
    ----------
    n : int
        Number of pictures. Picture ``i`` depends on ``seed`` and ``i`` only, not on ``n``.
    size : int or (int, int)
        Height and width, in pixels.
    seed : int
        Of the whole set.
    **options
        As for `cells`.
    """

    def __init__(self, n=100, size=256, seed=0, **options):
        super().__init__(cells, n, size, seed, options)


class SyntheticShapes(_Synthetic):
    """A data set of made-up pictures of discs, rectangles and triangles.

    Parameters
    ----------
    n : int
        Number of pictures. Picture ``i`` depends on ``seed`` and ``i`` only, not on ``n``.
    size : int or (int, int)
        Height and width, in pixels.
    seed : int
        Of the whole set.
    **options
        As for `shapes`.
    """

    def __init__(self, n=100, size=256, seed=0, **options):
        super().__init__(shapes, n, size, seed, options)


# ---- checks and numbering ------------------------------------------------------------------------------------------


def _size(size):
    """Return (height, width)."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or min(map(operator.index, pair)) < 16:
        raise ValueError(f"size is {size!r}; expected one or two whole numbers of at least 16 pixels")
    return pair


def _range(name, pair, minimum):
    """Return a pair (smallest, largest)."""
    low, high = pair
    if not minimum <= low <= high:
        raise ValueError(f"{name} is {pair!r}; expected (smallest, largest), at least {minimum}")
    return low, high


def _check(name, value, low, high):
    """Check that a number is in a range."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected {low} to {high}")


def _renumber(label, smallest):
    """Return ``label`` without objects of fewer than ``smallest`` pixels, numbered 1 to K without gaps, and K."""
    area = np.bincount(label.ravel())
    keep = area >= smallest
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return number[label], int(keep.sum())


def _window(centre, reach, size):
    """Return the slices of a picture within ``reach`` of a point, and the offsets (dy, dx) of the pixels from it."""
    (top, left), (bottom, right) = (
        [int(np.clip(np.floor(c + side), 0, n)) for c, n in zip(centre, size, strict=True)]
        for side in (-reach, reach + 2)
    )
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - centre[0])
    dx = np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - centre[1])
    return (slice(top, bottom), slice(left, right)), dy, dx


# ---- cells ---------------------------------------------------------------------------------------------------------


def _scatter(rng, size, low, high, coverage):
    """Return [(centre, radius)]: discs that may touch, and overlap a little, until they cover enough."""
    most = 1 + int(coverage * size[0] * size[1] / (np.pi * low * low))
    placed = np.empty((most, 3))
    n, missing, failures = 0, coverage * size[0] * size[1], 0
    while missing > 0 and failures < 150 and n < most:
        y, x, r = rng.uniform((0, 0, low), (*size, high))
        apart = (placed[:n, 0] - y) ** 2 + (placed[:n, 1] - x) ** 2 - (0.92 * (placed[:n, 2] + r)) ** 2
        if n and apart.min() < 0:
            failures += 1
            continue
        placed[n] = y, x, r
        n, missing, failures = n + 1, missing - np.pi * r * r, 0
    return [((y, x), r) for y, x, r in placed[:n].tolist()]


class _CellField:
    """For each pixel the nearest cell, in units of that cell's radius in that direction: below 1 is inside."""

    def __init__(self, size):
        far = np.float32(1e6)
        self.nearest = np.full(size, far)
        self.second = np.full(size, far)
        self.owner = np.zeros(size, np.int32)
        self.nucleus = np.full(size, far)
        self.radii = [1.0]

    def add(self, rng, centre, r):
        """Add a cell: a disc whose radius swings by three waves around it, with a nucleus off its centre."""
        here, dy, dx = _window(centre, 1.6 * r, self.nearest.shape)
        distance = np.sqrt(dy * dy + dx * dx)
        direction = (dx + 1j * dy) / np.maximum(distance, np.float32(1e-3))
        twice = direction * direction
        w2, w3, w4 = (rng.normal(0, (0.13, 0.07, 0.04), (2, 3)).T @ (1, 1j)).astype(np.complex64)
        wave = (twice * (w2 + w3 * direction + w4 * twice)).real
        ratio = distance / (np.float32(r) * np.clip(1 + wave, np.float32(0.6), np.float32(1.5)))
        closer = ratio < self.nearest[here]
        self.second[here] = np.where(closer, self.nearest[here], np.minimum(self.second[here], ratio))
        self.nearest[here][closer] = ratio[closer]
        self.owner[here][closer] = len(self.radii)
        oy, ox = rng.normal(0, 0.13 * r, 2).astype(np.float32)
        size = np.float32(rng.uniform(0.32, 0.45) * r)
        self.nucleus[here][closer] = (np.sqrt((dy - oy) ** 2 + (dx - ox) ** 2) / size)[closer]
        self.radii.append(r)

    def depth(self):
        """Return about how far inside its cell each pixel lies, in pixels; touching cells share their border."""
        radius = np.array(self.radii, np.float32)[self.owner]
        return np.minimum(1 - self.nearest, (self.second - self.nearest) / 2) * radius


def _paint_cells(rng, label, count, depth, field):
    """Return the (H, W) picture of cells before blur, light and noise."""
    size = label.shape
    coarse, fine, grain = (smooth_field(rng, size, spacing) for spacing in (40, 6, 2.5))
    background = 0.62 + 0.03 * coarse + 0.02 * fine
    body = np.concatenate([[0], rng.normal(0.47, 0.05, count)]).astype(np.float32)[label] + 0.035 * grain + 0.02 * fine
    nucleus = np.clip((1 - field.nucleus) * 4, 0, 1)
    body += nucleus * (-0.13 + 0.05 * grain)
    edge = np.exp(-(((depth - 1.2) / 1.3) ** 2))
    body -= 0.30 * edge * (1 + 0.2 * fine)
    return np.where(label > 0, body, background).astype(np.float32)


# ---- shapes --------------------------------------------------------------------------------------------------------


def _disc(rng, r, dy, dx):
    """Return how far outside a disc each pixel lies, in pixels."""
    return np.hypot(dy, dx) - np.float32(r)


def _polygon(angles, r, dy, dx):
    """Return how far outside a convex polygon, corners on a circle of radius r, each pixel lies."""
    corners = r * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    along = np.roll(corners, -1, axis=0) - corners
    length = np.hypot(*along.T)
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1) / length[:, None]
    outward *= np.sign(np.sum(outward * corners, axis=1))[:, None]
    offset = np.sum(outward * corners, axis=1)
    distances = [
        np.float32(ny) * dy + np.float32(nx) * dx - np.float32(d) for (ny, nx), d in zip(outward, offset, strict=True)
    ]
    return np.maximum.reduce(distances)


def _rectangle(rng, r, dy, dx):
    """Return how far outside a turned rectangle (a square at times) each pixel lies."""
    turn, half = rng.uniform(0, np.pi), rng.uniform(np.pi / 4, 0.36 * np.pi)
    return _polygon(turn + np.array([half, np.pi - half, np.pi + half, -half]), r, dy, dx)


def _triangle(rng, r, dy, dx):
    """Return how far outside a triangle with no very sharp corner each pixel lies."""
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3 + rng.uniform(-0.35, 0.35, 3)
    return _polygon(angles, r, dy, dx)


_EDGES = {"disc": _disc, "rectangle": _rectangle, "triangle": _triangle}


class _ShapeCanvas:
    """A picture that objects are laid upon one after another."""

    def __init__(self, rng, size, channels):
        colour = rng.uniform(0.25, 0.75, (channels, 1, 1)).astype(np.float32)
        broad, fine = smooth_field(rng, size, 48, channels), smooth_field(rng, size, 5)
        self.picture = colour + np.float32(0.06) * broad + np.float32(0.04) * fine
        self.background = colour
        self.instances = np.zeros(size, np.int32)
        self.classes, self.areas = [], [0]

    def add(self, rng, edge, kind, r, max_overlap):
        """Lay one object down and return True, or return False where it would hide too much or show too little."""
        size = self.instances.shape
        centre = [rng.uniform(min(0.6 * r, n / 2), max(n - 0.6 * r, n / 2)) for n in size]
        here, dy, dx = _window(centre, r + 1, size)
        distance = edge(rng, r, dy, dx)
        inside = distance < 0
        area = int(inside.sum())
        visible = np.bincount(self.instances.ravel(), minlength=len(self.areas))
        hidden = np.bincount(self.instances[here][inside], minlength=len(self.areas))
        left = (visible - hidden)[1:]
        if area < 9 or np.any(left < np.maximum((1 - max_overlap) * np.array(self.areas[1:]), 1)):
            return False
        cover = np.clip(0.5 - distance, 0, 1)
        self.picture[(slice(None), *here)] += cover * (self._surface(rng, dy, dx) - self.picture[(slice(None), *here)])
        self.classes.append(kind)
        self.areas.append(area)
        self.instances[here][inside] = len(self.classes)
        return True

    def _surface(self, rng, dy, dx):
        """Return an object's colours: unlike the background, with stripes, grain or a shade."""
        colour = rng.uniform(0.1, 0.9, self.background.shape).astype(np.float32)
        away = colour - self.background
        distance = np.sqrt(np.mean(away**2))
        if distance < 0.25:  # too like the background to be seen
            colour = self.background + away * np.float32(0.25 / max(distance, 0.02))
        angle, wavelength, strength = rng.uniform(0, np.pi), rng.uniform(5, 14), rng.uniform(0, 0.12)
        wave = np.sin(
            np.float32(2 * np.pi / wavelength) * (np.float32(np.sin(angle)) * dy + np.float32(np.cos(angle)) * dx)
        )
        grain = smooth_field(rng, wave.shape, 4)
        return colour + np.float32(strength) * wave + np.float32(rng.uniform(0, 0.06)) * grain
