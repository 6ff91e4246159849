"""Pictures in colours, masks laid over them, probabilities as colours.

Everything is painted some rows at a time, so that a photograph of many megapixels needs little more memory than the
drawing itself.
"""

import math

import numpy as np

from tinyseg.colours import CLASS_COLOURS, OKABE_ITO
from tinyseg.data.pictures import save as _save_array

#: How many pixels are painted at once.
_STRIP = 2**18
#: From how many values `to_rgb` takes its percentiles at most.
_PERCENTILE_VALUES = 2**22

#: What `errors` paints: found, made up, and overlooked.
ERROR_COLOURS = {
    "found": OKABE_ITO["bluish green"],
    "false alarm": OKABE_ITO["vermilion"],
    "missed": OKABE_ITO["blue"],
}


def to_rgb(picture, stretch=False):
    """Return a picture as (H, W, 3) uint8.

    Parameters
    ----------
    picture : ndarray
        (H, W), (1, H, W) or (3, H, W) float in [0, 1] (cut off beyond it), bool, or (H, W) or (H, W, 3) uint8.
    stretch : bool
        Spread the values over black to white, from the 0.5th to the 99.5th percentile: for dim pictures, for those
        with values outside [0, 1], and for normalised ones. Of a large picture, every second, third, ... pixel of
        every second, third, ... row is counted.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the shape or type is another.
    """
    picture = np.asarray(picture)
    floats = picture.dtype.kind == "f" or picture.dtype == bool
    values = picture
    if floats and picture.ndim == 3 and picture.shape[0] in (1, 3):
        values = picture.transpose(1, 2, 0)
    if values.ndim == 2:
        values = values[..., None]
    if not (floats or picture.dtype == np.uint8) or values.ndim != 3 or values.shape[2] not in (1, 3):
        raise ValueError(
            f"picture has shape {picture.shape} and dtype {picture.dtype}; expected (H, W), (1, H, W) or (3, H, W) "
            "float, or (H, W, 3) uint8"
        )
    low, high = _span(values) if floats and stretch else (0, 1)
    rgb = np.empty((*values.shape[:2], 3), np.uint8)
    for rows in strips(values.shape):
        rgb[rows] = _to_bytes(values[rows], low, high) if floats else values[rows]
    return rgb


def drawable(picture):
    """Return what can be shown of a picture as it was read, and whether its values need spreading.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float32.

    Returns
    -------
    shown : ndarray
        (1, H, W) or (3, H, W).
    dim : bool
        Whether its values leave [0, 1], or stay in the lower half of it.
    """
    shown = picture if picture.shape[0] in (1, 3) else picture[:1]
    return shown, bool(shown.size and (shown.min() < 0 or shown.max() > 1 or shown.max() <= 0.5))


def strips(shape):
    """Yield slices of rows that make a picture of ``shape``, (H, W, ...), each of not too many pixels."""
    height = max(1, _STRIP // max(1, shape[1]))
    for top in range(0, shape[0], height):
        yield slice(top, min(top + height, shape[0]))


def _span(values):
    """Return the 0.5th and the 99.5th percentile of an (H, W, C) picture."""
    step = math.ceil(math.sqrt(max(1, values.size / _PERCENTILE_VALUES)))
    some = values[::step, ::step].astype(np.float32)
    low, high = np.nanpercentile(some, (0.5, 99.5)) if some.size else (0, 1)
    return low, max(high, low + 1e-12)


def _to_bytes(values, low, high):
    """Return floats as bytes: ``low`` and less becomes 0, ``high`` and more 255, NaN 0."""
    values = values.astype(np.float32)
    if (low, high) != (0, 1):
        values = (values - low) / (high - low)
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def _labels(mask, shape):
    """Return a mask as an (H, W) array of integers or bool, of a picture's ``shape``."""
    labels = np.asarray(mask)
    if labels.ndim == 3 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.shape != shape or labels.dtype.kind not in "bui":
        raise ValueError(
            f"mask has shape {labels.shape} and dtype {labels.dtype}; expected integers of shape {shape}, "
            "as the picture has"
        )
    return labels


def check_opacity(opacity):
    """Raise a ValueError if an opacity is out of range."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity!r}; expected 0 to 1")


def _borders(labels, rows):
    """Return where, in some rows, a pixel's label differs from that of the pixel above, below, left or right."""
    top, bottom = max(rows.start - 1, 0), rows.stop + 1
    labels = labels[top:bottom]
    border = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border[rows.start - top : rows.stop - top]


def overlay(picture, mask, opacity=0.4, colours=CLASS_COLOURS, outline=True, stretch=False):
    """Lay a mask over a picture in colours.

    Parameters
    ----------
    picture : ndarray
        As for `to_rgb`.
    mask : ndarray
        (H, W) or (1, H, W) bool or integers: classes, or numbered objects; 0 stays as it is.
    opacity : float
        Of the colours, from 0 to 1.
    colours : sequence of (red, green, blue)
        From 0 to 255, of labels 1, 2, ...; they repeat.
    outline : bool
        Draw borders in the full colour.
    stretch : bool
        As for `to_rgb`.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the mask is of another size, or ``opacity`` out of range.
    """
    check_opacity(opacity)
    rgb = to_rgb(picture, stretch)
    labels = _labels(mask, rgb.shape[:2])
    paints = np.asarray(colours, np.float32)
    for rows in strips(rgb.shape):
        part = labels[rows].astype(np.int64)
        here = part != 0
        strength = np.where(here, np.float32(opacity), np.float32(0))
        if outline:
            strength[here & _borders(labels, rows)] = 1
        old = rgb[rows].astype(np.float32)
        rgb[rows] = np.rint(old + strength[..., None] * (paints[(part - 1) % len(paints)] - old)).astype(np.uint8)
    return rgb


def errors(picture, truth, prediction, opacity=0.55, stretch=False):
    """Show where a prediction of two classes is right and wrong.

    Parameters
    ----------
    picture : ndarray
        As for `to_rgb`.
    truth, prediction : ndarray
        (H, W) or (1, H, W) bool or integers; what is not 0 is the object.
    opacity : float
        Of the colours, from 0 to 1.
    stretch : bool
        As for `to_rgb`.

    Returns
    -------
    ndarray
        (H, W, 3) uint8: bluish green where the object was found, vermilion where there is none (false alarm), blue
        where it was missed (`ERROR_COLOURS`).

    Raises
    ------
    ValueError
        If one mask is of another size.
    """
    shape = picture_size(picture)
    truth, prediction = _labels(truth, shape), _labels(prediction, shape)
    kinds = np.empty(shape, np.uint8)
    for rows in strips(shape):
        true, found = truth[rows] != 0, prediction[rows] != 0
        kinds[rows] = np.where(true & found, 1, np.where(found, 2, np.where(true, 3, 0)))
    return overlay(picture, kinds, opacity, tuple(ERROR_COLOURS.values()), outline=False, stretch=stretch)


def picture_size(picture):
    """Return the height and width of a picture as `to_rgb` takes it."""
    picture = np.asarray(picture)
    channels_first = picture.ndim == 3 and picture.dtype != np.uint8 and picture.shape[0] in (1, 3)
    return picture.shape[1:] if channels_first else picture.shape[:2]


def probability_map(probability, colour_map="cividis"):
    """Show probabilities as colours.

    Parameters
    ----------
    probability : ndarray
        (H, W) or (1, H, W) float in [0, 1]; cut off beyond it. NaN is drawn in vermilion.
    colour_map : str
        A name that matplotlib knows. The default, cividis, looks alike to people with any colour vision (Nuñez,
        Anderton and Renslow 2018): dark blue is 0, yellow is 1.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the shape is another, or there is no such colour map.
    """
    from matplotlib import colormaps

    values = np.asarray(probability)
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2:
        raise ValueError(f"probability has shape {np.shape(probability)}; expected (H, W) or (1, H, W)")
    if colour_map not in colormaps:
        raise ValueError(f"colour_map is {colour_map!r}; expected a name that matplotlib knows, such as 'cividis'")
    table = (colormaps[colour_map](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    drawn = np.empty((*values.shape, 3), np.uint8)
    for rows in strips(values.shape):
        drawn[rows] = table[_to_bytes(values[rows], 0, 1)]
        drawn[rows][np.isnan(values[rows])] = OKABE_ITO["vermilion"]
    return drawn


def save(path, drawing):
    """Write a drawing as PNG, TIFF or JPEG, by the name's ending, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file.
    drawing : ndarray
        As for `to_rgb`.

    Raises
    ------
    ValueError
        If the ending or the shape is another.
    OSError
        If the file cannot be written.
    """
    _save_array(path, to_rgb(drawing))
