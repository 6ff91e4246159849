"""Picture files: values without loss by bit depth, and one clear sentence for what cannot be read."""

import importlib.util
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import count_pages, read_picture, read_stored, to_channels, write_picture

#: With this optional package tifffile decodes what is refused without it.
IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(rows, width, bits, colour_type, *more):
    """Return a PNG file made by hand: Pillow does not write all kinds."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def lzw(data):
    """Return bytes in TIFF's LZW coding (TIFF 6.0, section 13), each byte as itself: no table is built up."""
    bits = "".join(
        f"{256:09b}" + "".join(f"{byte:09b}" for byte in data[i : i + 200]) for i in range(0, len(data), 200)
    )
    bits += f"{257:09b}"
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def tiff_lzw(array, order="<", photometric=1, orientation=1):
    """Return an LZW TIFF file of one page made by hand: no writer here makes big-endian ones."""
    samples = 1 if array.ndim == 2 else array.shape[2]
    data = lzw(array.astype(array.dtype.newbyteorder(order)).tobytes())
    bits = array.dtype.itemsize * 8
    kind = {"u": 1, "f": 3}[array.dtype.kind]
    tags = [(256, 4, array.shape[1]), (257, 4, array.shape[0]), (258, 3, bits), (259, 3, 5), (262, 3, photometric)]
    tags += [(273, 4, 0), (274, 3, orientation), (277, 3, samples), (278, 4, array.shape[0]), (279, 4, len(data))]
    tags += [(284, 3, 1), (339, 3, kind)]
    lists_at = 8 + 2 + 12 * len(tags) + 4
    data_at = lists_at + 4 * samples
    directory = struct.pack(order + "H", len(tags))
    for tag, code, value in tags:
        if tag in (258, 339) and samples > 2:  # one number a channel, in a list
            place = lists_at if tag == 258 else lists_at + 2 * samples
            directory += struct.pack(order + "HHII", tag, code, samples, place)
        elif code == 4:
            directory += struct.pack(order + "HHII", tag, code, 1, data_at if tag == 273 else value)
        else:
            directory += struct.pack(order + "HHIHH", tag, code, 1, value, 0)
    start = b"II*\0" if order == "<" else b"MM\0*"
    lists = struct.pack(order + f"{2 * samples}H", *[bits] * samples, *[kind] * samples)
    return start + struct.pack(order + "I", 8) + directory + struct.pack(order + "I", 0) + lists + data


def put(path, content):
    path.write_bytes(content)
    return path


def saved(array, format, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (20, 30), dtype=np.uint8)


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)


# ---- values by bit depth -------------------------------------------------------------------------------------------


def test_known_values_of_an_8_bit_picture(tmp_path):
    path = put(tmp_path / "a.png", saved(np.array([[0, 51, 255]], np.uint8), "PNG"))
    picture = read_picture(path)
    assert picture.dtype == np.float32 and picture.shape == (1, 1, 3)
    assert picture.tolist() == [[[0, np.float32(0.2), 1]]]


@pytest.mark.parametrize(
    "bits, stored", [(1, [0, 1, 1, 0]), (2, [0, 1, 2, 3]), (4, [0, 5, 10, 15]), (8, [0, 1, 2, 255])]
)
def test_grey_png_of_few_bits_gives_the_stored_numbers(tmp_path, bits, stored):
    row = int("".join(f"{value:0{bits}b}" for value in stored), 2) << (-4 * bits) % 8
    path = put(tmp_path / "a.png", png([row.to_bytes(-(-4 * bits // 8), "big")], 4, bits, 0))
    found = read_stored(path)
    assert (found.bits, found.colour, found.array.dtype) == (bits, "grey", np.uint8)
    assert found.array.tolist() == [stored]
    np.testing.assert_array_equal(read_picture(path)[0, 0], np.array(stored, np.float32) / np.float32(2**bits - 1))


def test_16_bit_grey_png_keeps_every_value(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = put(tmp_path / "a.png", saved(values, "PNG"))
    np.testing.assert_array_equal(read_stored(path).array, values)
    picture = read_picture(path)
    assert len(np.unique(picture)) == 65536 and picture.min() == 0 and picture.max() == 1


@pytest.mark.parametrize("colour_type, samples", [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_png_is_refused_by_name(tmp_path, colour_type, samples):
    path = put(tmp_path / "deep.png", png([bytes(2 * samples)], 1, 16, colour_type))
    with pytest.raises(ValueError, match=r"deep\.png is a PNG with 16 bits a channel .*; save it as TIFF$"):
        read_picture(path)


@pytest.mark.parametrize("colour_type, row, expected", [(4, b"\x07\x00", [7]), (6, b"\x01\x02\x03\x00", [1, 2, 3])])
def test_alpha_is_dropped_and_hidden_colours_count(tmp_path, colour_type, row, expected):
    path = put(tmp_path / "a.png", png([row], 1, 8, colour_type))
    assert read_stored(path).array.ravel().tolist() == expected


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_gives_its_colours_and_its_indices(tmp_path, bits):
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 51, 0]))
    path = put(tmp_path / "a.png", png([bytes([1 << (8 - bits)])], 1, bits, 3, palette))
    stored = read_stored(path)
    assert stored.colour == "palette" and stored.array.tolist() == [[1]]
    np.testing.assert_array_equal(read_picture(path).ravel(), np.float32([1, 0.2, 0]))


def test_jpeg_grey_and_colour(tmp_path):
    flat = np.full((16, 16), 128, np.uint8)
    path = put(tmp_path / "a.jpg", saved(flat, "JPEG"))
    np.testing.assert_array_equal(read_picture(path), np.full((1, 16, 16), np.float32(128 / 255)))
    path = put(tmp_path / "b.jpg", saved(np.stack([flat] * 3, 2), "JPEG"))
    assert read_picture(path).shape == (3, 16, 16)


def test_jpeg_in_cmyk_is_refused_by_name(tmp_path):
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(buffer, "JPEG")
    with pytest.raises(ValueError, match=r"ink\.jpg is a JPEG in CMYK colours; expected"):
        read_picture(put(tmp_path / "ink.jpg", buffer.getvalue()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "TIFF", "LZW"])
def test_orientation_is_applied_as_pillow_does(tmp_path, rng, orientation, format):
    blocks = np.kron(rng.integers(0, 256, (2, 3)), np.ones((8, 8))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    reference = saved(blocks, "PNG" if format != "JPEG" else "JPEG", exif=exif)
    if format == "JPEG":
        content = reference
    elif format == "TIFF":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, blocks, extratags=[(0x0112, 3, 1, orientation, True)])
        content = buffer.getvalue()
    else:
        content = tiff_lzw(blocks, orientation=orientation)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(reference))))
    np.testing.assert_array_equal(read_stored(put(tmp_path / "a.jpg", content)).array, expected)


# ---- TIFF ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_every_depth_is_read_without_loss(tmp_path, rng, byteorder, dtype, shape, compression):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        values = rng.normal(0, 3, shape).astype(dtype)
    else:
        values = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    path = tmp_path / "a.tif"
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(path, values, byteorder=byteorder, photometric=photometric, compression=compression)
    stored = read_stored(path)
    assert stored.array.dtype == dtype and stored.array.dtype.isnative
    np.testing.assert_array_equal(stored.array, values)
    picture = read_picture(path)
    if dtype.kind == "f":
        expected = values.astype(np.float32)
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        expected = (values.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(picture, expected.reshape(5, 7, -1).transpose(2, 0, 1), rtol=2e-7, atol=1e-12)


def test_tiff_planes_1_bit_white_zero_and_palette(tmp_path, rng, grey, colour):
    tifffile.imwrite(tmp_path / "p.tif", colour.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_stored(tmp_path / "p.tif").array, colour)
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "b.tif", grey > 99, photometric=photometric)
        np.testing.assert_array_equal(read_stored(tmp_path / "b.tif").array, (grey > 99).astype(np.uint8))
        seen = grey > 99 if photometric == "minisblack" else grey <= 99
        np.testing.assert_array_equal(read_picture(tmp_path / "b.tif")[0], seen.astype(np.float32))
    tifffile.imwrite(tmp_path / "w.tif", grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_stored(tmp_path / "w.tif").array, grey)
    np.testing.assert_allclose(read_picture(tmp_path / "w.tif")[0], (255 - grey) / 255, atol=1e-7)
    table = rng.integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", grey, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_stored(tmp_path / "c.tif").array, grey)
    np.testing.assert_allclose(read_picture(tmp_path / "c.tif"), table[:, grey] / 65535, rtol=1e-6)


def test_tiff_alpha_is_dropped_and_other_channels_are_not(tmp_path, rng):
    values = rng.integers(0, 65536, (4, 5, 4), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_stored(tmp_path / "a.tif").array, values[..., :3])
    tifffile.imwrite(
        tmp_path / "g.tif",
        values[..., :2],
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["assocalpha"],
    )
    np.testing.assert_array_equal(read_stored(tmp_path / "g.tif").array, values[..., 0])
    tifffile.imwrite(tmp_path / "m.tif", values, photometric="minisblack", planarconfig="contig")
    assert read_picture(tmp_path / "m.tif").shape == (4, 4, 5)
    with pytest.raises(ValueError, match=r"m\.tif has 4 channels; expected 3"):
        read_picture(tmp_path / "m.tif", channels=3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_lzw_tiff_is_read_without_loss(tmp_path, rng, order, dtype, photometric):
    values = rng.integers(0, 250, (6, 7)).astype(dtype) * (1 if dtype == "uint8" else np.dtype(dtype).type(262))
    path = put(tmp_path / "a.tif", tiff_lzw(values, order, photometric))
    wrong_in_pillow = order == ">" and (dtype == "float32" or (dtype, photometric) == ("uint16", 0))
    if wrong_in_pillow and not IMAGECODECS:
        with pytest.raises(ValueError, match=r"a\.tif is a .*-bit TIFF of 1 channel\(s\) with LZW compression"):
            read_stored(path)
        return
    found = read_stored(path)
    assert found.array.dtype == dtype and found.white_is_zero == (photometric == 0)
    np.testing.assert_array_equal(found.array, values)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_lzw_tiff_is_refused_by_name(tmp_path, rng, order):
    values = rng.integers(0, 65536, (6, 7, 3), dtype=np.uint16)
    path = put(tmp_path / "deep.tif", tiff_lzw(values, order, 2))
    if IMAGECODECS:
        np.testing.assert_array_equal(read_stored(path).array, values)
        return
    with pytest.raises(ValueError, match=r"deep\.tif is a 16-bit TIFF of 3 channel\(s\) with LZW compression, which"):
        read_picture(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group4", "jpeg"])
def test_tiff_compressions_that_pillow_writes(tmp_path, grey, compression):
    values = grey > 99 if compression == "group4" else np.kron(grey[:4, :4], np.ones((8, 8), np.uint8))
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    found = read_stored(tmp_path / "a.tif").array
    np.testing.assert_allclose(found, values.astype(np.uint8), atol=3 if compression == "jpeg" else 0)


def test_pages(tmp_path, rng):
    stack = rng.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    assert count_pages(path) == 3
    for number in range(3):
        stored = read_stored(path, number)
        np.testing.assert_array_equal(stored.array, stack[number])
        assert (stored.page, stored.pages) == (number, 3)
    np.testing.assert_array_equal(read_picture(path, page="all")[:, 0], stack / np.float32(255))
    with pytest.raises(ValueError, match=r"stack\.tif has 3 pages; say which page, from 0 to 2"):
        read_picture(path)
    with pytest.raises(ValueError, match=r"stack\.tif has 3 pages; page 3 was asked for"):
        read_picture(path, page=3)
    with pytest.raises(ValueError, match=r"has 3 pages; page -1 was asked for"):
        read_picture(path, page=-1)
    write_picture(tmp_path / "one.png", stack[0])
    with pytest.raises(ValueError, match=r"one\.png has 1 page; page 1 was asked for"):
        read_picture(tmp_path / "one.png", page=1)


def test_pages_of_different_sizes_are_no_stack_but_each_is_read(tmp_path, grey):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(grey)
        writer.write(grey[:5])
    assert read_picture(tmp_path / "a.tif", page=1).shape == (1, 5, 30)
    with pytest.raises(ValueError, match=r"a\.tif has pages of different sizes, \(20, 30\) and \(5, 30\)"):
        read_picture(tmp_path / "a.tif", page="all")


def test_previews_are_no_pages_of_their_own(tmp_path, grey):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(grey)
        writer.write(grey[::2, ::2], subfiletype=1)
    assert count_pages(tmp_path / "a.tif") == 1
    np.testing.assert_array_equal(read_stored(tmp_path / "a.tif").array, grey)


def test_a_stack_listed_as_one_page_is_refused_rather_than_cut(tmp_path, grey):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([grey] * 3), photometric="minisblack", truncate=True)
    with pytest.raises(ValueError, match=r"a\.tif is a stack whose pages are not listed"):
        read_picture(tmp_path / "a.tif")


# ---- files that are no good ----------------------------------------------------------------------------------------


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


KINDS = {
    "png": lambda a: saved(a, "PNG"),
    "jpg": lambda a: saved(a, "JPEG"),
    "progressive.jpg": lambda a: saved(a, "JPEG", progressive=True),
    "plain.tif": tiff,
    "big.tif": lambda a: tiff(a, bigtiff=True, byteorder=">"),
    "zlib.tif": lambda a: tiff(a, compression="zlib"),
    "strips.tif": lambda a: tiff(a, rowsperstrip=4),
    "tiles.tif": lambda a: tiff(a, tile=(16, 16)),
    "lzw.tif": tiff_lzw,
    "pages.tif": lambda a: tiff(np.stack([a] * 3), photometric="minisblack", compression="zlib"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_a_picture_is_refused_by_name_or_still_whole(tmp_path, grey, kind):
    content = KINDS[kind](grey)
    path = put(tmp_path / f"cut.{kind}", content)
    whole = read_picture(path, page="all")
    for length in {*range(0, len(content), 7), *range(len(content) - 20, len(content))}:
        put(path, content[:length])
        try:
            cut = read_picture(path, page="all")
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:  # a last byte that holds nothing, such as the padding of a tile
            np.testing.assert_array_equal(cut, whole)
            assert length > len(content) - 300 and not kind.endswith(("png", "jpg"))


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path, grey):
    content = bytearray(saved(grey, "PNG"))
    content[len(content) // 2] ^= 1
    with pytest.raises(ValueError, match=r"a\.png is damaged: a checksum"):
        read_picture(put(tmp_path / "a.png", bytes(content)))


@pytest.mark.parametrize("kind, name", [("png", "a.tif"), ("jpg", "a.png"), ("plain.tif", "a.jpg")])
def test_a_renamed_picture_is_read_by_its_contents(tmp_path, grey, kind, name):
    expected = read_picture(put(tmp_path / f"right.{kind}", KINDS[kind](grey)))
    np.testing.assert_array_equal(read_picture(put(tmp_path / name, KINDS[kind](grey))), expected)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, this is text", r"is no picture that can be read \(it begins with b'hello, t'\)"),
        (b"GIF89a" + bytes(20), "is a GIF file; expected a PNG, TIFF or JPEG picture"),
        (b"BM" + bytes(20), "is a BMP file"),
        (b"\x89PNG\r\n\x1a\n", "is truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is damaged"),
        (b"II*\0" + bytes(40), "is truncated"),
        (b"\xff\xd8\xff" + bytes(40), "is truncated or damaged"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, words):
    path = put(tmp_path / "x.png", content)
    with pytest.raises(ValueError, match=rf"x\.png {words}") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_places_that_are_no_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist; expected a picture file"):
        read_picture(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="is a folder; expected a picture file"):
        read_picture(tmp_path)


def test_animated_png_is_refused(tmp_path, grey):
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.png is an animated PNG"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_values_are_named_with_their_place(tmp_path, bad):
    values = np.zeros((4, 5), np.float32)
    values[2, 3] = bad
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=rf"a\.tif holds {bad} at row 2, column 3; expected finite"):
        read_picture(tmp_path / "a.tif")


def test_float64_beyond_float32_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.0, 1e300]]))
    with pytest.raises(ValueError, match=r"a\.tif holds 1e\+300 at row 0, column 1"):
        read_picture(tmp_path / "a.tif")


def test_complex_values_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.complex64))
    with pytest.raises(ValueError, match=r"a\.tif holds complex64 values"):
        read_picture(tmp_path / "a.tif")


def test_describe(tmp_path, grey):
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(np.uint16))
    assert read_stored(tmp_path / "a.tif").describe() == "16-bit grey TIFF, 20 x 30 (height x width)"


# ---- channels and writing ------------------------------------------------------------------------------------------


def test_to_channels():
    red_green_blue = np.eye(3, dtype=np.float32)[:, None]  # three pixels
    np.testing.assert_allclose(to_channels(red_green_blue, 1)[0, 0], [0.299, 0.587, 0.114], rtol=1e-6)
    grey = np.float32([[[0.25, 0.5]]])
    assert to_channels(grey, 3).tolist() == [[[0.25, 0.5]]] * 3
    assert to_channels(grey, None) is grey and to_channels(grey, 1) is grey
    with pytest.raises(ValueError, match="picture has 2 channels; expected 1, or"):
        to_channels(np.zeros((2, 4, 4), np.float32), 1)


@pytest.mark.parametrize("ending, bits", [("png", 8), ("png", 16), ("tif", 8), ("tiff", 16), ("tif", 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_write_and_read_back(tmp_path, rng, ending, bits, channels):
    picture = rng.random((channels, 6, 7), dtype=np.float32)
    path = tmp_path / f"a.{ending}"
    if (ending, bits, channels) == ("png", 16, 3):
        with pytest.raises(ValueError, match=r"a\.png cannot hold 16 bits in PNG for shape \(3, 6, 7\); write TIFF"):
            write_picture(path, picture, bits)
        return
    write_picture(path, picture, bits)
    assert read_stored(path).bits == bits
    tolerance = 0 if bits == 32 else 0.5001 / (2**bits - 1)
    np.testing.assert_allclose(read_picture(path), picture, rtol=0, atol=tolerance)


def test_write_uint8_as_it_is_and_jpeg_nearly(tmp_path, grey, colour):
    write_picture(tmp_path / "a.png", colour)
    np.testing.assert_array_equal(read_stored(tmp_path / "a.png").array, colour)
    smooth = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8), (20, 30))
    write_picture(tmp_path / "a.jpg", smooth)
    np.testing.assert_allclose(read_stored(tmp_path / "a.jpg").array.astype(int), smooth, atol=4)


def test_writing_nonsense_is_named_and_writes_nothing(tmp_path, grey):
    with pytest.raises(ValueError, match=r"a\.bmp ends in '\.bmp'; expected \.png"):
        write_picture(tmp_path / "a.bmp", grey)
    with pytest.raises(ValueError, match="runs from -1 to 1; expected 0 to 1"):
        write_picture(tmp_path / "a.png", np.float32([[-1, 1]]))
    with pytest.raises(ValueError, match="runs from nan to nan"):
        write_picture(tmp_path / "a.png", np.float32([[np.nan, 1]]))
    with pytest.raises(TypeError, match="picture has dtype int64; expected uint8"):
        write_picture(tmp_path / "a.png", grey.astype(np.int64))
    with pytest.raises(ValueError, match="bits is 12"):
        write_picture(tmp_path / "a.png", np.float32([[0, 1]]), bits=12)
    with pytest.raises(ValueError, match=r"picture has shape \(2, 3, 4\); expected \(H, W\), or 1 or 3 channels"):
        write_picture(tmp_path / "a.png", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match="expected at least one pixel"):
        write_picture(tmp_path / "a.png", np.zeros((0, 4), np.float32))
    with pytest.raises(OSError, match=r"^cannot write .*a\.png: the folder does not exist$"):
        write_picture(tmp_path / "gone" / "a.png", grey)
    assert list(tmp_path.iterdir()) == []
