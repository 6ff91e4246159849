"""What a picture file stores, without loss: PNG and JPEG through Pillow, TIFF through tifffile.

Pillow reduces 16-bit colour to 8 bits without a word, so bit depths are taken from the files' own headers, and what
no reader here gives back exactly is refused by name. The contents decide what a file is, not its name.
"""

import logging
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

#: How files begin, and what that makes them.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\x89HDF", "HDF5"),
    (b"%PDF", "PDF"),
    (b"\x93NUMPY", "NumPy"),
)

_ORIENTATION = 0x0112  # the tag of that name, in EXIF and in TIFF


@dataclass(frozen=True)
class Stored:
    """One picture as its file stores it.

    Parameters
    ----------
    array : ndarray
        (H, W), or (H, W, C) for more than one channel, in native byte order, upright (the orientation tag is
        applied), without alpha. 1-bit pictures are 0 and 1 in uint8; palette pictures are their indices.
    bits : int
        Bits a channel, as stored: integers run from 0 to ``2**bits - 1``.
    colour : {"grey", "rgb", "palette", "channels"}
        What the channels are.
    palette : ndarray or None
        (entries, 3) float32 in [0, 1].
    white_is_zero : bool
        Whether the file says that small numbers are bright (TIFF's MINISWHITE). The array has the numbers as stored.
    format : {"PNG", "JPEG", "TIFF"}
        What the file is.
    page, pages : int
        Which page this is, from 0, and how many there are.
    path : str
        The file.
    """

    array: np.ndarray
    bits: int
    colour: str
    palette: np.ndarray | None
    white_is_zero: bool
    format: str
    page: int
    pages: int
    path: str

    def describe(self):
        """Return the picture in words, such as ``"16-bit grey TIFF, 1024 x 1024 (height x width)"``."""
        kind = "float" if self.array.dtype.kind == "f" else "bit"
        colour = f"{self.array.shape[2]}-channel" if self.colour == "channels" else self.colour
        height, width = self.array.shape[:2]
        return f"{self.bits}-{kind} {colour} {self.format}, {height} x {width} (height x width)"


def refuse(path, why, cause=None):
    """Raise the ValueError that names a file and what is wrong with it."""
    raise ValueError(f"{os.fspath(path)} {why}") from cause


def read_stored(path, page=None):
    """Read what a PNG, JPEG or TIFF file stores.

    Parameters
    ----------
    path : str or path-like
        The file; its contents decide what it is, not its name.
    page : int, optional
        Which page of a TIFF file, from 0. Without it the file must have one page.

    Returns
    -------
    Stored
        The values as stored, and what they are. Alpha is dropped: colours count as stored, also where the picture
        is transparent.

    Raises
    ------
    ValueError
        If the file is empty, truncated or no picture, has several pages and ``page`` is not given, or cannot be
        read exactly (16-bit colour PNG, CMYK, animations); one sentence with the file's name.
    OSError
        If there is no such file, or it may not be read.
    """
    format = sniff(path)
    if format == "TIFF":
        return _read_tiff(path, page)
    if page not in (None, 0):
        refuse(path, f"has 1 page; page {page} was asked for (pages count from 0)")
    return _read_with_pillow(path, format)


def count_pages(path):
    """Return how many pages a picture file has: 1, except for TIFF files with more.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    int
        At least 1; previews and transparency masks do not count.

    Raises
    ------
    ValueError
        If it is no picture, or truncated.
    OSError
        If there is no such file, or it may not be read.
    """
    if sniff(path) != "TIFF":
        return 1
    with _open_tiff(path) as tif:
        return len(_full_pages(path, tif))


def sniff(path):
    """Return "PNG", "JPEG" or "TIFF" by the file's first bytes, or refuse it by name."""
    if os.path.isdir(path):
        refuse(path, "is a folder; expected a picture file")
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{os.fspath(path)} does not exist; expected a picture file") from error
    except PermissionError as error:
        raise PermissionError(f"{os.fspath(path)} may not be read: permission denied") from error
    if not start:
        refuse(path, "is empty (0 bytes); expected a PNG, TIFF or JPEG picture")
    for signature, format in _SIGNATURES:
        if start.startswith(signature):
            if format not in ("PNG", "JPEG", "TIFF"):
                refuse(path, f"is a {format} file; expected a PNG, TIFF or JPEG picture")
            return format
    refuse(path, f"is no picture that can be read (it begins with {start[:8]!r}); expected PNG, TIFF or JPEG")


def _turn_upright(array, orientation):
    """Apply an orientation tag (1 to 8, EXIF 2.32, page 42) to an (H, W) or (H, W, C) array."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


# ---- PNG and JPEG --------------------------------------------------------------------------------------------------


def _png_header(path):
    """Return (bits, colour type) of a PNG file, having checked that all its chunks are there and undamaged."""
    with open(path, "rb") as file:
        file.seek(8)
        header = None
        while True:
            start = file.read(8)
            if len(start) < 8:
                refuse(path, "is truncated: this PNG file has no end mark")
            length, name = struct.unpack(">I4s", start)
            body = file.read(length + 4)
            if len(body) < length + 4:
                refuse(path, "is truncated: this PNG file ends inside a chunk")
            (stored_sum,) = struct.unpack(">I", body[-4:])
            if zlib.crc32(name + body[:-4]) != stored_sum:
                refuse(path, f"is damaged: a checksum of this PNG file is wrong (chunk {name.decode('latin1')})")
            if name == b"IHDR":
                header = body[8], body[9]
            elif name == b"acTL":
                refuse(path, "is an animated PNG; expected one picture a file (or a multi-page TIFF)")
            elif name == b"IEND":
                break
    if header is None:
        refuse(path, "is damaged: this PNG file has no header")
    return header


def _read_with_pillow(path, format):
    """Read a PNG or JPEG file; ``format`` is what its first bytes say."""
    bits, colour_type = _png_header(path) if format == "PNG" else (8, None)
    if bits == 16 and colour_type != 0:
        refuse(path, "is a PNG with 16 bits a channel and colour or alpha, which would be cut to 8; save it as TIFF")
    try:
        with Image.open(path, formats=(format,)) as image:
            image.load()
            orientation = image.getexif().get(_ORIENTATION, 1)
            mode, palette = image.mode, _palette_of(image)
            array = np.array(image)
    except Image.DecompressionBombError as error:
        refuse(path, "has more pixels than Pillow agrees to decode; save it as TIFF", error)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        refuse(path, f"is truncated or damaged: {error}", error)
    if mode in ("LA", "RGBA"):
        array = array[..., 0] if mode == "LA" else array[..., :3]
    elif mode.startswith("I") and bits == 16:
        array = array.astype(np.uint16)  # some versions of Pillow give int32
    elif mode == "L" and bits in (2, 4):
        array = array // (255 // (2**bits - 1))  # Pillow spreads 2 and 4 bits over 0..255
    elif mode == "1":
        array = array.astype(np.uint8)
    elif mode not in ("L", "P", "RGB"):
        refuse(path, f"is a {format} in {mode} colours; expected grey, RGB or palette")
    colour = "palette" if mode == "P" else "grey" if array.ndim == 2 else "rgb"
    array = _turn_upright(array, orientation)
    return Stored(array, bits, colour, palette, False, format, 0, 1, os.fspath(path))


def _palette_of(image):
    """Return the palette of a Pillow image as (256, 3) float32 in [0, 1], black where it has no entry, or None."""
    if image.mode != "P":
        return None
    entries = np.zeros(768, np.float32)
    stored = image.getpalette("RGB")
    entries[: len(stored)] = stored
    return entries.reshape(256, 3) / np.float32(255)


# ---- TIFF ----------------------------------------------------------------------------------------------------------

_FIRST_BYTES = {b"II": "<", b"MM": ">"}


def _open_tiff(path):
    """Return the open TIFF file, having checked that no page's directory is missing."""
    import tifffile  # a tenth of a second: not at import

    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # what matters is raised below: no lines on the screen beside that
        logger.addHandler(logging.NullHandler())
    directories = _count_directories(path)
    try:
        tif = tifffile.TiffFile(path)
    except Exception as error:  # tifffile raises what its parsing happens to raise
        refuse(path, f"is truncated or damaged: {error}", error)
    try:
        if len(tif.pages) != directories:
            refuse(path, f"is damaged: {directories} pages are listed and {len(tif.pages)} can be read")
    except Exception:
        tif.close()
        raise
    return tif


def _count_directories(path):
    """Walk the chain of page directories by itself: tifffile leaves out what lies beyond the end of a file."""
    with open(path, "rb") as file:
        start = file.read(16)
        end = file.seek(0, os.SEEK_END)
        order = _FIRST_BYTES[start[:2]]
        big = start[2:4] in (b"+\0", b"\0+")
        count_code, offset_code, entry_size = ("Q", "Q", 20) if big else ("H", "I", 12)
        count_size, offset_size = struct.calcsize(count_code), struct.calcsize(offset_code)
        offset_at, seen = 8 if big else 4, set()
        while True:
            file.seek(offset_at)
            stored = file.read(offset_size)
            if len(stored) < offset_size:
                refuse(path, "is truncated: a page's directory is not complete in this TIFF file")
            (offset,) = struct.unpack(order + offset_code, stored)
            if offset == 0:
                break
            if offset in seen or offset + count_size > end:
                refuse(path, "is truncated or damaged: a page of this TIFF file lies beyond its end")
            seen.add(offset)
            file.seek(offset)
            (entries,) = struct.unpack(order + count_code, file.read(count_size))
            offset_at = offset + count_size + entries * entry_size
    if not seen:
        refuse(path, "is truncated: this TIFF file has no page")
    return len(seen)


def _full_pages(path, tif):
    """Return the pages of an open TIFF file that are pictures of their own: no previews, no transparency masks."""
    pages = [page for page in tif.pages if not int(page.subfiletype) & 0b101]
    if not pages:
        refuse(path, "has no page of full size")
    first = pages[0]
    if tif.imagej_metadata and tif.imagej_metadata.get("images", 1) > len(tif.pages):
        refuse(path, "is an ImageJ stack whose pages are not listed one by one; save it anew as TIFF")
    if tif.shaped_metadata and int(np.prod(tif.shaped_metadata[0]["shape"])) > first.size * len(tif.pages):
        refuse(path, "is a stack whose pages are not listed one by one; save it anew with one directory a page")
    return pages


def _read_tiff(path, number):
    """Read one page of a TIFF file."""
    with _open_tiff(path) as tif:
        pages = _full_pages(path, tif)
        if number is None and len(pages) > 1:
            refuse(path, f"has {len(pages)} pages; say which page, from 0 to {len(pages) - 1}, or page='all'")
        number = 0 if number is None else number
        if not 0 <= number < len(pages):
            refuse(path, f"has {len(pages)} pages; page {number} was asked for (pages count from 0)")
        page = pages[number]
        _check_page(path, tif, page)
        array, orientation = _decode_page(path, tif, page)
        bits, photometric = int(page.bitspersample), int(page.photometric)
        palette = _tiff_palette(page) if photometric == 3 else None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif":
        refuse(path, f"holds {array.dtype} values; expected integers or floats")
    if array.ndim == 3:
        array = _drop_alpha(array, page)
    colour = "grey" if array.ndim == 2 else "rgb" if array.shape[2] == 3 and photometric in (2, 6) else "channels"
    colour = "palette" if palette is not None else colour
    array = _turn_upright(array, orientation)
    return Stored(array, bits, colour, palette, photometric == 0, "TIFF", number, len(pages), os.fspath(path))


def _check_page(path, tif, page):
    """Refuse a page whose data lies partly beyond the end of the file, or that is no plain picture."""
    end = tif.filehandle.size
    ends = [offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > end or len(page.dataoffsets) != len(page.databytecounts):
        refuse(path, "is truncated: the pixels of this TIFF file are not all there")
    if page.axes not in ("YX", "YXS", "SYX"):
        refuse(path, f"has a page with axes {page.axes}; expected rows, columns and channels")
    if not isinstance(page.bitspersample, int):
        refuse(path, f"has channels of different depths, {page.bitspersample} bits; expected one depth")


def _decode_page(path, tif, page):
    """Return a page's numbers as stored, and the orientation that is still to be applied."""
    if int(page.photometric) in (0, 1, 2, 3):
        try:
            array = page.asarray()
        except Exception as error:  # zlib.error, struct.error, ValueError, TiffFileError, ...
            if "imagecodecs" not in str(error) and "not supported" not in str(error):
                refuse(path, f"is truncated or damaged: {error}", error)
        else:
            array = array.transpose(1, 2, 0) if page.axes == "SYX" else array
            return array, page.tags.valueof(_ORIENTATION, 1)
    return _decode_page_with_pillow(path, tif, page), 1  # Pillow applies it


def _decode_page_with_pillow(path, tif, page):
    """Decode a compression that tifffile has no code for (LZW, JPEG, fax), where Pillow does so without loss."""
    compression = getattr(page.compression, "name", page.compression)
    what = f"is a {page.bitspersample}-bit TIFF of {page.samplesperpixel} channel(s) with {compression} compression"
    advice = "save it uncompressed, or install imagecodecs"
    mode = _pillow_mode(tif, page)
    if mode is None:
        refuse(path, f"{what}, which cannot be read exactly here; {advice}")
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            image.seek(page.index)
            image.load()
            found, array = image.mode, np.array(image)
    except Exception as error:
        refuse(path, f"{what}: either a kind that cannot be read here ({advice}), or damaged ({error})", error)
    if found.removesuffix("B") != mode:
        refuse(path, f"{what}, which would be read as {found}; {advice}")
    if int(page.photometric) == 0 and mode in ("1", "L"):  # Pillow turned black and white round
        array = ~array
    return array


def _pillow_mode(tif, page):
    """Return the mode in which Pillow gives a page exactly, or None."""
    kind, samples, photometric = np.dtype(page.dtype), page.samplesperpixel, int(page.photometric)
    if photometric == 3:
        return "P" if (kind, samples, page.bitspersample) == (np.uint8, 1, 8) else None
    if kind == np.uint8 and page.bitspersample == 8:
        return {1: "L", 3: "RGB", 4: "RGBA"}.get(samples)
    if samples != 1:
        return None
    if kind == np.float32:
        return "F" if tif.byteorder == "<" else None  # others come with their bytes in the wrong order
    return {np.dtype(bool): "1", np.dtype(np.uint16): "I;16"}.get(kind.newbyteorder("="))


def _drop_alpha(array, page):
    """Return (H, W, C) without the channels that the file calls alpha, and (H, W) where one channel is left."""
    extra = [int(kind) for kind in page.extrasamples]
    colours = array.shape[2] - len(extra) if len(extra) <= array.shape[2] else array.shape[2]
    keep = [c for c in range(array.shape[2]) if c < colours or extra[c - colours] == 0]
    return array[..., keep[0]] if len(keep) == 1 else array[..., keep]


def _tiff_palette(page):
    """Return a page's colour map as (entries, 3) float32 in [0, 1]; some programs fill only the lower 8 bits."""
    colours = np.asarray(page.colormap).T
    return (colours / (65535 if colours.max(initial=0) > 255 else 255)).astype(np.float32)
