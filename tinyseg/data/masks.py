"""Mask files: which class each pixel belongs to."""

import os

import numpy as np

from tinyseg.colours import CLASS_COLOURS
from tinyseg.data.formats import read_stored, refuse
from tinyseg.data.pictures import _format_of, save

#: A label picture with more numbers than this is taken for another kind of picture.
MOST_OBJECTS = 10_000


def read_mask(path, num_classes=1, *, instances=False, ignore_index=None, page=None):
    """Read a mask from a PNG, TIFF or (for two classes) JPEG file.

    With ``num_classes`` 1 or 2 there is background and one kind of object. The file may then hold

    - 0 and 1 (1-bit files, or 8-bit files that look black), or
    - 0 and white, where white is 255 or the largest number of the file's bit depth (65535 for 16 bits).

    With ``num_classes`` 3 or more, the numbers in the file are the classes, 0 (background) to ``num_classes - 1``;
    in a palette file, the indices. No other number is guessed at: it is an error. Colour files count as grey if
    their channels are equal. The numbers count as stored, also in TIFF files whose 0 is shown white (as ImageJ's
    binary pictures and tifffile's bool arrays are). JPEG changes values near edges, so JPEG masks are cut at half
    of white; only masks of two classes survive that.

    Parameters
    ----------
    path : str or path-like
        The file.
    num_classes : int
        Number of classes with the background; 1 (a network with one output) and 2 read alike.
    instances : bool
        The numbers are objects, 1 to any number: whatever is not 0 becomes 1.
    ignore_index : int, optional
        A number in the file that stays as it is, outside the classes: pixels that do not count.
    page : int, optional
        Which page of a TIFF file, from 0; without it the file must have one page.

    Returns
    -------
    ndarray
        (H, W), uint8 where the classes and ``ignore_index`` fit into that, else int32.

    Raises
    ------
    ValueError
        If a number is no class (the error names the file, the number and the pixel), or the file cannot be read.
    OSError
        If there is no such file, or it may not be read.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes!r}; expected 1 or more")
    stored = read_stored(path, page)
    values = _one_channel(stored)
    if stored.format == "JPEG":
        values = _cut_jpeg(stored, values, num_classes, instances)
    ignored = None if ignore_index is None else values == ignore_index
    if instances:
        values = values != 0
    elif num_classes <= 2:
        values = _binary(stored, values, ignored)
    else:
        _check_classes(path, values, ignored, num_classes, f"a class from 0 to {num_classes - 1}")
    small = num_classes <= 256 and (ignore_index is None or 0 <= ignore_index <= 255)
    mask = values.astype(np.uint8 if small else np.int32)
    if ignored is not None:
        mask[ignored] = ignore_index
    return mask


def read_instances(path, *, ignore_index=None, page=None, most=MOST_OBJECTS):
    """Read a label picture: 0 is the background, and each other number one object.

    The numbers may have gaps. The objects are numbered anew, 1 to K, in the rising order of their numbers in the
    file. Parts that do not touch are one object if their number is the same. 8, 16 and 32 bits, palettes (their
    indices) and floats that are whole numbers are read; JPEG is not, as it changes numbers.

    Parameters
    ----------
    path : str or path-like
        A PNG or TIFF file.
    ignore_index : int, optional
        A number that is no object: pixels that do not count. They become 0.
    page : int, optional
        Which page of a TIFF file, from 0; without it the file must have one page.
    most : int
        How many objects are believed.

    Returns
    -------
    ndarray
        (H, W) int32; its largest number is K, the number of objects, and each of 1 to K occurs.

    Raises
    ------
    ValueError
        If the file is a colour picture, holds fractions or negative numbers, or more objects than ``most``, or cannot
        be read; one sentence that names the file.
    OSError
        If there is no such file, or it may not be read.
    """
    stored = read_stored(path, page)
    values = _one_channel(stored)
    if stored.format == "JPEG":
        refuse(path, "is a JPEG file, which changes objects' numbers; expected PNG or TIFF")
    if ignore_index is not None:
        values = np.where(values == ignore_index, values.dtype.type(0), values)
    if values.min(initial=0) < 0:
        row, column = np.argwhere(values < 0)[0]
        refuse(path, f"holds {values[row, column]} at row {row}, column {column}; expected objects' numbers from 0")
    numbers, places = np.unique(values, return_inverse=True)
    places = places.reshape(values.shape).astype(np.int32)
    if numbers.size == 0 or numbers[0] != 0:  # no background: every pixel belongs to an object
        places += 1
    count = int(places.max(initial=0))
    if count > most:
        refuse(path, f"holds {count} different numbers; expected at most {most} objects (is this a label picture?)")
    return places


def _one_channel(stored):
    """Return the mask's numbers as (H, W); colour files must be grey in fact, floats whole numbers."""
    values = stored.array
    if values.ndim == 3:
        spread = np.ptp(values, axis=2)
        if spread.max(initial=0) > (16 if stored.format == "JPEG" else 0):
            row, column = np.argwhere(spread == spread.max())[0]
            refuse(
                stored.path,
                f"is a colour picture ({values[row, column].tolist()} at row {row}, column {column}); "
                "expected a mask of class numbers, in grey or with a palette",
            )
        values = values[..., 0]
    if values.dtype.kind == "f":
        broken = ~(values == np.rint(values))  # also where it is NaN
        if broken.any():
            row, column = np.argwhere(broken)[0]
            refuse(stored.path, f"holds {values[row, column]} at row {row}, column {column}; expected whole numbers")
    return values


def _cut_jpeg(stored, values, num_classes, instances):
    """Return a JPEG mask as 0 and 1."""
    if num_classes > 2 or instances:
        refuse(stored.path, "is a JPEG file, which changes class numbers; expected PNG or TIFF for this mask")
    between = np.mean((values > 63) & (values < 192))
    if between > 0.05:
        refuse(stored.path, f"is no mask: {between:.0%} of its pixels are neither black nor white")
    return values >= 128


def _binary(stored, values, ignored):
    """Return 0 and 1 for a mask of background and one kind of object."""
    counted = values if ignored is None else values[~ignored]
    largest = 1 if stored.format == "JPEG" or counted.size == 0 else counted.max()
    white = {255, 2**stored.bits - 1} if stored.array.dtype.kind != "f" else {255}
    top = largest if largest in white else 1
    wrong = (values != 0) & (values != top)
    if ignored is not None:
        wrong &= ~ignored
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        refuse(
            stored.path,
            f"holds {values[row, column]} at row {row}, column {column}; expected 0 and 1, or 0 and 255 "
            "(more classes need their number, --classes or num_classes; numbered objects need instances=True)",
        )
    return values == top


def _check_classes(path, values, ignored, num_classes, expected):
    """Refuse numbers that are no class."""
    wrong = (values < 0) | (values >= num_classes)
    if ignored is not None:
        wrong &= ~ignored
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        refuse(path, f"holds {values[row, column]} at row {row}, column {column}; expected {expected}")


def check_same_size(picture, mask, picture_name="picture", mask_name="mask"):
    """Check that a mask is of its picture's size.

    Parameters
    ----------
    picture : ndarray
        (C, H, W).
    mask : ndarray
        (H, W).
    picture_name, mask_name : str
        What to call them in the error.

    Raises
    ------
    ValueError
        If the sizes differ; the error names both.
    """
    if mask.shape != picture.shape[1:]:
        raise ValueError(
            f"{os.fspath(mask_name)} is {mask.shape[0]} x {mask.shape[1]} (height x width); expected "
            f"{picture.shape[1]} x {picture.shape[2]}, as its picture {os.fspath(picture_name)} is"
        )


def write_mask(path, mask, num_classes=1):
    """Write a mask so that `read_mask` reads it back and a person can see it.

    Parameters
    ----------
    path : str or path-like
        A PNG or TIFF file, by its ending.
    mask : ndarray
        (H, W) bool or integers: classes from 0 to ``num_classes - 1`` (0 and 1 for ``num_classes=1``).
    num_classes : int
        1 and 2 write 0 and 255. More write the classes themselves, a PNG with a palette of clear colours.

    Raises
    ------
    ValueError
        If a number is no class, there are more than 256, the shape is another, or the ending is not PNG or TIFF.
    OSError
        If the file cannot be written.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ValueError(f"mask has shape {mask.shape} and dtype {mask.dtype}; expected (H, W) integers")
    if _format_of(path) == "JPEG":
        raise ValueError(f"{os.fspath(path)} is a JPEG name, which would change the mask; expected .png or .tif")
    if not 1 <= num_classes <= 256:
        raise ValueError(f"num_classes is {num_classes!r}; expected 1 to 256")
    _check_classes(f"mask for {os.fspath(path)}", mask, None, max(num_classes, 2), "its classes only")
    if num_classes <= 2:
        save(path, mask.astype(np.uint8) * np.uint8(255))
        return
    palette = [(0, 0, 0)] + [CLASS_COLOURS[k % len(CLASS_COLOURS)] for k in range(num_classes - 1)]
    save(path, mask.astype(np.uint8), palette if _format_of(path) == "PNG" else None)
