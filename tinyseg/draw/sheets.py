"""Drawings side by side, with titles above and a legend below."""

import math

import numpy as np

from tinyseg.draw.pictures import to_rgb

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
