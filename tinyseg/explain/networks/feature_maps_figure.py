"""The sheet of feature maps: a row for every layer, its maps small, side by side."""

import textwrap

import numpy as np

_LABEL = 1.9  # inches for a layer's name and range
_PICTURE = 1.5  # inches, height of the picture


def draw_sheet(picture, arrays, chosen, count, width):
    """Draw a picture and the maps of layers.

    Parameters
    ----------
    picture : ndarray, shape (C, H, W)
    arrays : dict of str to ndarray
        ``(C, h, w)`` of each layer.
    chosen : dict of str to ndarray of int
        Which channels of each.
    count : int
        How many layers there are, also those that are not drawn.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    columns = max(1, max(len(channels) for channels in chosen.values()))
    map_width = min((width - _LABEL - 0.2) / columns, 1.6)
    shape = picture.shape[1] / picture.shape[2]
    map_height = min((map_width - 0.06) * shape, 2.0)
    row = max(map_height + 0.24, 0.5)
    drawn = f"{len(arrays)} layers" if len(arrays) == count else f"{len(arrays)} of {count} layers"
    title = textwrap.wrap(f"Feature maps: {drawn}; the channels of each that vary most over the picture", width / 0.1)
    note = "Dark to bright: from a row's least to its largest value, written beside it. Above each map: its channel."
    notes = textwrap.wrap(note, width / 0.085)
    head = 0.2 + 0.2 * len(title) + 0.17 * len(notes)
    top = head + _PICTURE + 0.2
    height = top + row * len(arrays) + 0.1
    figure = Figure(figsize=(width, height), dpi=100)
    figure.text(0.1 / width, 1 - 0.1 / height, "\n".join(title), fontsize=11, va="top", weight="bold")
    y = 1 - (0.13 + 0.2 * len(title)) / height
    figure.text(0.1 / width, y, "\n".join(notes), fontsize=9, va="top", color="#444444")
    _draw_picture(figure, picture, width, height, head)
    for number, (name, array) in enumerate(arrays.items()):
        channels, y = chosen[name], height - top - row * (number + 1)
        shown = array[channels]
        low, high = float(shown.min()), float(shown.max())
        lines = textwrap.wrap(name, 26, break_on_hyphens=False)[:2]
        words = "\n".join([*lines, f"{' x '.join(map(str, array.shape))}", f"{low:.3g} to {high:.3g}"])
        figure.text(0.1 / width, (y + map_height / 2) / height, words, fontsize=7.5, va="center", linespacing=1.25)
        for place, channel in enumerate(channels):
            size = (map_width - 0.06) / width, map_height / height
            axes = figure.add_axes(((_LABEL + place * map_width) / width, y / height, *size))
            axes.imshow(array[channel], cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto",
                        interpolation="nearest")  # fmt: skip
            axes.set_title(str(channel), fontsize=6.5, pad=1.5)
            axes.set_axis_off()
    return figure


def _draw_picture(figure, picture, width, height, top):
    """Draw what the network was given, as colours where there are three channels."""
    low, high = picture.min(), picture.max()
    scaled = (picture - low) / (high - low if high > low else 1)
    colours = np.moveaxis(scaled, 0, -1) if len(picture) == 3 else scaled[0]
    wide = min(_PICTURE * picture.shape[2] / picture.shape[1], width - _LABEL - 0.2)
    size = wide / width, wide * picture.shape[1] / picture.shape[2] / height
    axes = figure.add_axes((_LABEL / width, 1 - top / height - size[1], *size))
    axes.imshow(colours, cmap="gray", aspect="auto")
    axes.set_axis_off()
    shape = " x ".join(map(str, picture.shape))
    figure.text(0.1 / width, 1 - (top + _PICTURE / 2) / height, f"the picture\n{shape}\n{low:.3g} to {high:.3g}",
                fontsize=7.5, va="center", linespacing=1.25)  # fmt: skip
