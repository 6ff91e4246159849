"""Picture files as arrays in [0, 1], and back."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tinyseg.data.formats import count_pages, read_stored, refuse
from tinyseg.files import atomic_write

#: Weights of red, green and blue in the luma of ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)


def read_picture(path, channels=None, page=None):
    """Read a PNG, TIFF or JPEG picture as floats.

    Integers are divided by the largest number of their bit depth, ``2**bits - 1``, so that black is 0 and white is 1
    (signed ones are shifted first: the smallest becomes 0; where a TIFF file says that 0 is white, black and white
    change places). Floats stay as they are. A palette gives its colours.
    Alpha is dropped: the colours count as stored. The orientation tag is applied.

    Parameters
    ----------
    path : str or path-like
        The file; its contents decide what it is, not its name.
    channels : {None, 1, 3}
        1 turns colour into grey (see `to_channels`), 3 repeats grey; None keeps what the file has.
    page : int or "all", optional
        Which page of a TIFF file, from 0; without it the file must have one page.

    Returns
    -------
    ndarray
        (C, H, W) float32, or (pages, C, H, W) for ``page="all"``.

    Raises
    ------
    ValueError
        If the file cannot be read exactly, or holds NaN or infinity, or has a number of channels that cannot become
        ``channels``; one sentence with the file's name. See `read_stored` for the rest.
    OSError
        If there is no such file, or it may not be read.
    """
    if page == "all":
        pictures = [read_picture(path, channels, number) for number in range(count_pages(path))]
        if len({picture.shape for picture in pictures}) > 1:
            refuse(path, f"has pages of different sizes, {_shapes(pictures)}; read them one by one")
        return np.stack(pictures)
    stored = read_stored(path, page)
    values = _to_float(stored)
    values = values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))
    return to_channels(values, channels, name=os.fspath(path))


def _shapes(pictures):
    """Return the first two different shapes of a list of pictures, in words."""
    other = next(picture.shape for picture in pictures if picture.shape != pictures[0].shape)
    return f"{pictures[0].shape[1:]} and {other[1:]}"


def _to_float(stored):
    """Return what a file stores as float32, integers scaled to [0, 1]."""
    array = stored.array
    if stored.palette is not None:
        if array.max(initial=0) >= len(stored.palette):
            refuse(stored.path, f"uses colour {array.max()} of a palette of {len(stored.palette)}")
        return stored.palette[array]
    if array.dtype.kind in "ui":
        wide = np.float32 if stored.bits <= 16 else np.float64
        lowest = wide(-(2 ** (stored.bits - 1)) if array.dtype.kind == "i" else 0)
        values = (array.astype(wide) - lowest) / wide(2**stored.bits - 1)
        return (1 - values if stored.white_is_zero else values).astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        place = np.argwhere(~finite)[0]
        bad = array[tuple(place)]
        more = f"; {(~finite).sum()} such values in all" if (~finite).sum() > 1 else ""
        refuse(stored.path, f"holds {bad} at row {place[0]}, column {place[1]}{more}; expected finite float32 values")
    return values


def to_channels(picture, channels, name="picture"):
    """Turn a picture into grey or into RGB.

    Grey is the luma of ITU-R BT.601, ``0.299 R + 0.587 G + 0.114 B``, of the values as they are.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float.
    channels : int or None
        1 or 3, or the number of channels that the picture has; None changes nothing.
    name : str
        What to call the picture in an error.

    Returns
    -------
    ndarray
        (channels, H, W); the picture itself where nothing changes.

    Raises
    ------
    ValueError
        If the picture has neither 1 nor 3 nor ``channels`` channels.
    """
    have = picture.shape[0]
    if channels is None or channels == have:
        return picture
    if channels == 1 and have == 3:
        return np.tensordot(np.asarray(LUMA, picture.dtype), picture, 1)[None]
    if channels == 3 and have == 1:
        return np.repeat(picture, 3, axis=0)
    raise ValueError(f"{name} has {have} channels; expected {channels}, or 1 or 3 to turn into that")


def write_picture(path, picture, bits=8):
    """Write a picture as PNG, TIFF or JPEG, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file; its ending (.png, .tif, .tiff, .jpg, .jpeg) decides the format. JPEG loses detail.
    picture : ndarray
        (H, W), (1, H, W) or (3, H, W) float in [0, 1], or (H, W) or (H, W, 3) uint8, which is written as it is.
    bits : {8, 16, 32}
        Of a float picture. 8 and 16 round to the nearest of ``2**bits - 1`` steps; 16 needs a TIFF, or PNG and grey.
        32 stores the floats themselves, in any range, and needs a TIFF.

    Raises
    ------
    ValueError
        If the shape, type, range, ending or number of bits is another, or none for that format.
    OSError
        If the file cannot be written.
    """
    format = _format_of(path)
    if picture.dtype == np.uint8:
        values, bits = picture, 8
    elif picture.dtype.kind == "f":
        values = _quantise(path, picture, bits)
    else:
        raise TypeError(f"picture has dtype {picture.dtype}; expected uint8, or floats in [0, 1]")
    if values.ndim != 2 and (values.ndim != 3 or values.shape[2] != 3):
        raise ValueError(f"picture has shape {picture.shape}; expected (H, W), or 1 or 3 channels")
    most = {"JPEG": 8, "PNG": 16 if values.ndim == 2 else 8, "TIFF": 32}[format]
    if bits > most:
        raise ValueError(f"{os.fspath(path)} cannot hold {bits} bits in {format} for shape {picture.shape}; write TIFF")
    save(path, values)


def _quantise(path, picture, bits):
    """Return a float picture as (H, W) or (H, W, 3) integers of that many bits, or as float32 for 32."""
    if bits not in (8, 16, 32):
        raise ValueError(f"bits is {bits!r}; expected 8, 16 or 32")
    if picture.ndim == 3:
        picture = picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0)
    if bits == 32:
        return picture.astype(np.float32)
    low, high = (picture.min(), picture.max()) if picture.size else (0, 1)
    if not (low >= 0 and high <= 1):  # also where it is NaN
        raise ValueError(f"picture for {os.fspath(path)} runs from {low:g} to {high:g}; expected 0 to 1 (or bits=32)")
    return np.rint(picture * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def _format_of(path):
    """Return the format that a file name's ending asks for."""
    endings = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
    ending = Path(path).suffix.lower()
    if ending not in endings:
        raise ValueError(f"{os.fspath(path)} ends in {ending!r}; expected {', '.join(endings)}")
    return endings[ending]


def save(path, values, palette=None):
    """Write an (H, W) or (H, W, 3) array as it is: the format by the ending, the bit depth by the dtype.

    Parameters
    ----------
    path : str or path-like
        The file.
    values : ndarray
        What the format can hold: uint8; uint16 for grey PNG and TIFF; float32 for TIFF.
    palette : list of (red, green, blue), optional
        Colours from 0 to 255, for a PNG of (H, W) uint8 indices.
    """
    format = _format_of(path)
    if values.size == 0:
        raise ValueError(f"picture for {os.fspath(path)} has shape {values.shape}; expected at least one pixel")
    values = np.ascontiguousarray(values)
    with atomic_write(path) as file:
        if format == "TIFF":
            import tifffile

            photometric = "minisblack" if values.ndim == 2 else "rgb"
            tifffile.imwrite(file, values, photometric=photometric, compression="zlib", metadata=None)
            return
        image = Image.fromarray(values)
        if palette is not None:
            image.putpalette([value for colour in palette for value in colour])
        image.save(file, format=format, **({"quality": 95} if format == "JPEG" else {}))
