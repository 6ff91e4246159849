"""Words beside boxes: inside the picture, never over one another, and none where there is no room."""

import numpy as np

#: Labels that together would cover more of the picture than this are left out.
_MOST_COVERED = 0.2


def label_texts(labels, scores, class_names):
    """Return what to write at each object: its class, its score, or both.

    Parameters
    ----------
    labels : ndarray or None
        (K,) integers: classes.
    scores : ndarray or None
        (K,) from 0 to 1.
    class_names : sequence of str
        Names of class 0, 1, ...; a class without a name is written as a number.

    Returns
    -------
    list of str
        Empty where there is neither.
    """
    if labels is None and scores is None:
        return []
    words = []
    if labels is not None:
        named = [class_names[n] if 0 <= n < len(class_names) else "" for n in labels.tolist()]
        words.append([name or f"class {n}" for name, n in zip(named, labels.tolist(), strict=True)])
    if scores is not None:
        words.append([f"{score:.2f}" for score in scores.tolist()])
    return [" ".join(parts) for parts in zip(*words, strict=True)]


def paint_labels(rgb, texts, spans, paints, font_size, always):
    """Write a label beside each box, the last box's first; leave out what has no room.

    Parameters
    ----------
    rgb : ndarray
        (H, W, 3) uint8, painted in place.
    texts : list of str
        One per box.
    spans : ndarray
        (K, 4) integers: first column, first row, last column + 1, last row + 1 of each box.
    paints : ndarray
        (K, 3) uint8: colours of the boxes.
    font_size : int
        Pixels.
    always : bool
        Write as many as find room, even if they would cover a large part of the picture.
    """
    from PIL import ImageFont

    font = ImageFont.load_default(font_size)
    sizes = [_size(text, font, font_size) for text in texts]
    if not always and sum(h * w for h, w in sizes) > _MOST_COVERED * rgb.shape[0] * rgb.shape[1]:
        return
    taken = np.empty((0, 4), int)
    for i in reversed(range(len(texts))):
        place = _place(spans[i], sizes[i], rgb.shape, taken)
        if place is None:
            continue
        top, left, bottom, right = place
        rgb[top:bottom, left:right] = _drawn(texts[i], sizes[i], paints[i], font)
        taken = np.vstack([taken, place])


def _size(text, font, font_size):
    """Return height and width of a label."""
    return round(1.3 * font_size), round(font.getlength(text) + 0.5 * font_size)


def _place(span, size, shape, taken):
    """Return top, left, bottom, right of a label: above its box, in it or below it; None where there is no room."""
    height, width = size
    x1, y1, x2, y2 = span
    left = min(max(x1, 0), shape[1] - width)
    if left < 0 or x2 <= x1 or y2 <= y1:  # wider than the picture, or a box outside it
        return None
    tops = [y1 - height, y1, y2] if 2.5 * height <= y2 - y1 else [y1 - height, y2]
    for top in tops:
        place = np.array([top, left, top + height, left + width])
        apart = (taken[:, 0] >= place[2]) | (taken[:, 2] <= place[0])
        apart |= (taken[:, 1] >= place[3]) | (taken[:, 3] <= place[1])
        if top >= 0 and top + height <= shape[0] and apart.all():
            return place
    return None


def _drawn(text, size, paint, font):
    """Return a label as (h, w, 3) uint8: black or white words on the object's colour."""
    from PIL import Image, ImageDraw

    bright = float(np.dot(paint, (0.299, 0.587, 0.114))) > 120
    image = Image.new("RGB", (size[1], size[0]), tuple(int(value) for value in paint))
    ink = (0, 0, 0) if bright else (255, 255, 255)
    ImageDraw.Draw(image).text((size[1] / 2, size[0] / 2), text, ink, font, anchor="mm")
    return np.asarray(image)
