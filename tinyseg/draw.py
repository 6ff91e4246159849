"""Pictures of results: masks laid over pictures, probabilities as colours, panels side by side.

Drawings are arrays, (H, W, 3) uint8; `save` writes them. No drawing touches matplotlib's global state: it is loaded
for a colour map, when one is drawn, and never opens a window.
"""

import math

import numpy as np

from tinyseg.colours import CLASS_COLOURS, OKABE_ITO
from tinyseg.data.pictures import save as _save_array

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
        with values outside [0, 1], and for normalised ones.

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
    if picture.dtype.kind == "f" or picture.dtype == bool:
        if picture.ndim == 3 and picture.shape[0] in (1, 3):
            picture = picture.transpose(1, 2, 0)
        values = picture.astype(np.float32)
        if stretch and values.size:
            low, high = np.nanpercentile(values, (0.5, 99.5))
            values = (values - low) / max(high - low, 1e-12)
        picture = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(
            f"picture has shape {picture.shape} and dtype {picture.dtype}; expected (H, W), (1, H, W) or (3, H, W) "
            "float, or (H, W, 3) uint8"
        )
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture.copy()


def _over(picture, labels, stretch):
    """Return the picture in colours, and the labels as an (H, W) array of its size."""
    rgb, labels = to_rgb(picture, stretch), np.asarray(labels)
    if labels.ndim == 3 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.shape != rgb.shape[:2] or labels.dtype.kind not in "bui":
        raise ValueError(
            f"mask has shape {labels.shape} and dtype {labels.dtype}; expected integers of shape {rgb.shape[:2]}, "
            "as the picture has"
        )
    return rgb, labels


def _borders(labels):
    """Return where a pixel's label differs from that of the pixel above, below, left or right."""
    border = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border


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
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity!r}; expected 0 to 1")
    rgb, labels = _over(picture, mask, stretch)
    labels = labels.astype(np.int64)
    paint = np.asarray(colours, np.float32)[(labels - 1) % len(colours)]
    strength = np.where(labels != 0, np.float32(opacity), 0)
    if outline:
        strength = np.where((labels != 0) & _borders(labels), 1, strength)
    mixed = rgb + strength[..., None].astype(np.float32) * (paint - rgb)
    return np.rint(mixed).astype(np.uint8)


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
    _, truth = _over(picture, truth, False)
    _, prediction = _over(picture, prediction, False)
    truth, prediction = truth != 0, prediction != 0
    kinds = np.where(truth & prediction, 1, np.where(prediction, 2, np.where(truth, 3, 0)))
    return overlay(picture, kinds, opacity, tuple(ERROR_COLOURS.values()), outline=False, stretch=stretch)


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

    values = np.asarray(probability, np.float32)
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2:
        raise ValueError(f"probability has shape {np.shape(probability)}; expected (H, W) or (1, H, W)")
    if colour_map not in colormaps:
        raise ValueError(f"colour_map is {colour_map!r}; expected a name that matplotlib knows, such as 'cividis'")
    table = (colormaps[colour_map](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    drawn = table[np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)]
    drawn[np.isnan(values)] = OKABE_ITO["vermilion"]
    return drawn


# ---- panels --------------------------------------------------------------------------------------------------------

_INK, _PAPER = (40, 40, 40), 255


def panels(drawings, titles=None, columns=None, gap=8, legend=None):
    """Put drawings side by side, with titles above and a legend below.

    Parameters
    ----------
    drawings : sequence of ndarray
        Each as for `to_rgb`; those of another size than the largest stand at the top left of their place.
    titles : sequence of str, optional
        One for each drawing.
    columns : int, optional
        How many to a row; all by default.
    gap : int
        Pixels between them.
    legend : dict, optional
        From words to (red, green, blue), such as `ERROR_COLOURS`.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If there are no drawings, or not as many titles.
    """
    drawings = [to_rgb(drawing) for drawing in drawings]
    if not drawings or (titles is not None and len(titles) != len(drawings)):
        raise ValueError(
            f"{len(drawings)} drawings and {len(titles or ())} titles; expected one title for each, of at least one"
        )
    columns = min(columns or len(drawings), len(drawings))
    height, width = (max(drawing.shape[axis] for drawing in drawings) for axis in (0, 1))
    font_size = max(11, round(width / 24))
    head = round(1.7 * font_size) if titles is not None else 0
    rows = math.ceil(len(drawings) / columns)
    strip = _legend(legend, columns * (width + gap) + gap, font_size, gap) if legend else None
    bottom = 0 if strip is None else strip.shape[0]
    size = (rows * (head + height + gap) + gap + bottom, columns * (width + gap) + gap, 3)
    sheet = np.full(size, _PAPER, np.uint8)
    for i, drawing in enumerate(drawings):
        top, left = gap + i // columns * (head + height + gap), gap + i % columns * (width + gap)
        if titles is not None:
            sheet[top : top + head, left : left + width] = _text(titles[i], (head, width), font_size)
        sheet[top + head : top + head + drawing.shape[0], left : left + drawing.shape[1]] = drawing
    if strip is not None:
        sheet[size[0] - bottom :] = strip
    return sheet


def _text(words, size, font_size, left=0):
    """Return an (H, W, 3) strip with one line of text; what does not fit is cut and ends in dots."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (size[1], size[0]), (_PAPER,) * 3)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(font_size)
    if pen.textlength(words, font) > size[1] - left:
        while words and pen.textlength(words + "...", font) > size[1] - left:
            words = words[:-1]
        words += "..."
    pen.text((left, size[0] / 2), words, _INK, font, anchor="lm")
    return np.asarray(strip)


def _legend(entries, width, font_size, gap):
    """Return a strip of colours with the words for them; as many lines as it takes."""
    from PIL import Image, ImageDraw, ImageFont

    font, line = ImageFont.load_default(font_size), round(1.8 * font_size)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    x, y, places = gap, 0, []
    for words, colour in entries.items():
        length = round(pen.textlength(words, font) + 2.6 * font_size)
        if x > gap and x + length > width:
            x, y = gap, y + line
        places.append((x, y, words, colour))
        x += length
    strip = Image.new("RGB", (width, y + line + gap), (_PAPER,) * 3)
    pen = ImageDraw.Draw(strip)
    for x, y, words, colour in places:
        top = y + (line - font_size) // 2
        pen.rectangle((x, top, x + font_size, top + font_size), tuple(colour))
        pen.text((x + 1.5 * font_size, y + line / 2), words, _INK, font, anchor="lm")
    return np.asarray(strip)


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
