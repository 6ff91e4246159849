"""Mask files: which numbers mean which class, and which are refused by name."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import check_same_size, read_mask, write_mask


@pytest.fixture
def binary(rng):
    return rng.integers(0, 2, (9, 11), dtype=np.uint8)


def put(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("num_classes", [1, 2])
def test_two_classes_as_0_1_or_0_255_or_one_bit(tmp_path, binary, num_classes):
    files = [
        put(tmp_path / "a.png", binary),
        put(tmp_path / "b.png", binary * np.uint8(255)),
        put(tmp_path / "c.png", binary == 1),
        put(tmp_path / "d.png", binary.astype(np.uint16) * np.uint16(65535)),
        put(tmp_path / "e.png", binary.astype(np.uint16) * np.uint16(255)),
        put(tmp_path / "f.png", np.stack([binary * np.uint8(255)] * 3, 2)),
    ]
    for name, photometric in (("g.tif", "minisblack"), ("h.tif", "miniswhite")):
        tifffile.imwrite(tmp_path / name, binary == 1, photometric=photometric)
        files.append(tmp_path / name)
    for name, dtype in (("i.tif", np.uint8), ("j.tif", np.float32)):
        tifffile.imwrite(tmp_path / name, binary.astype(dtype) * dtype(255))
        files.append(tmp_path / name)
    for path in files:
        mask = read_mask(path, num_classes)
        assert mask.dtype == np.uint8, path
        np.testing.assert_array_equal(mask, binary, err_msg=str(path))


@pytest.mark.parametrize("value, expected", [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_value(tmp_path, value, expected):
    path = put(tmp_path / "a.png", np.full((4, 4), value, np.uint8))
    assert np.unique(read_mask(path)).tolist() == [expected]


def test_a_third_value_is_named_with_its_place(tmp_path, binary):
    binary[3, 4] = 7
    with pytest.raises(ValueError, match=r"a\.png holds 7 at row 3, column 4; expected 0 and 1, or .*--classes"):
        read_mask(put(tmp_path / "a.png", binary))
    mixed = np.array([[0, 1, 255]], np.uint8)
    with pytest.raises(ValueError, match=r"b\.png holds 1 at row 0, column 1; expected 0 and 1, or 0 and 255"):
        read_mask(put(tmp_path / "b.png", mixed))


def test_classes_are_read_as_they_are(tmp_path, rng):
    classes = rng.integers(0, 4, (6, 7), dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(put(tmp_path / "a.png", classes), 4), classes)
    np.testing.assert_array_equal(read_mask(put(tmp_path / "b.png", classes.astype(np.uint16)), 4), classes)
    image = Image.fromarray(classes)
    image.putpalette([9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png", bits=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png", 4), classes)
    with pytest.raises(ValueError, match=r"a\.png holds 3 at row \d, column \d; expected a class from 0 to 2"):
        read_mask(tmp_path / "a.png", 3)


def test_0_and_255_are_no_classes_of_three(tmp_path, binary):
    path = put(tmp_path / "a.png", binary * np.uint8(255))
    row, column = np.argwhere(binary)[0]
    with pytest.raises(ValueError, match=rf"holds 255 at row {row}, column {column}; expected a class from 0 to 2"):
        read_mask(path, 3)


def test_ignored_pixels_keep_their_number(tmp_path):
    classes = np.array([[0, 1, 2, 255]], np.uint8)
    path = put(tmp_path / "a.png", classes)
    np.testing.assert_array_equal(read_mask(path, 3, ignore_index=255), classes)
    path = put(tmp_path / "b.png", classes[:, [0, 1, 3]])
    np.testing.assert_array_equal(read_mask(path, 1, ignore_index=255), [[0, 1, 255]])


def test_numbered_objects_become_1(tmp_path):
    path = put(tmp_path / "a.png", np.array([[0, 1, 300, 0, 2]], np.uint16))
    assert read_mask(path, instances=True).tolist() == [[0, 1, 1, 0, 1]]


def test_more_than_256_classes(tmp_path):
    path = put(tmp_path / "a.png", np.array([[0, 299]], np.uint16))
    mask = read_mask(path, 300)
    assert mask.dtype == np.int32 and mask.tolist() == [[0, 299]]


def test_what_is_no_mask_is_refused_by_name(tmp_path, rng):
    colour = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    with pytest.raises(
        ValueError, match=r"c\.png is a colour picture \(\[.*\] at row \d, column \d\); expected a mask"
    ):
        read_mask(put(tmp_path / "c.png", colour))
    tifffile.imwrite(tmp_path / "f.tif", np.array([[0, 0.5]], np.float32))
    with pytest.raises(ValueError, match=r"f\.tif holds 0\.5 at row 0, column 1; expected whole numbers"):
        read_mask(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "n.tif", np.array([[0, np.nan]], np.float32))
    with pytest.raises(ValueError, match=r"n\.tif holds nan at row 0, column 1; expected whole numbers"):
        read_mask(tmp_path / "n.tif", 3)
    with pytest.raises(ValueError, match="num_classes is 0; expected 1 or more"):
        read_mask(tmp_path / "n.tif", 0)


def test_jpeg_masks_are_cut_at_half_of_white(tmp_path, binary):
    blocks = np.kron(binary, np.ones((16, 16), np.uint8))
    path = put(tmp_path / "a.jpg", blocks * np.uint8(255), quality=60)
    np.testing.assert_array_equal(read_mask(path), blocks)
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG file, which changes class numbers; expected PNG or TIFF"):
        read_mask(path, 3)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (64, 256))
    with pytest.raises(ValueError, match=r"r\.jpg is no mask: \d+% of its pixels are neither black nor white"):
        read_mask(put(tmp_path / "r.jpg", ramp))


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 12, 256])
def test_write_and_read_back(tmp_path, rng, ending, num_classes):
    mask = rng.integers(0, max(num_classes, 2), (9, 8))
    path = tmp_path / f"a.{ending}"
    write_mask(path, mask, num_classes)
    np.testing.assert_array_equal(read_mask(path, num_classes), mask)


def test_masks_written_of_two_classes_look_black_and_white(tmp_path):
    write_mask(tmp_path / "a.png", np.array([[False, True]]))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 255]]


def test_writing_nonsense_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"mask for .*a\.png holds 2 at row 0, column 1; expected its classes only"):
        write_mask(tmp_path / "a.png", np.array([[0, 2]]))
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG name, which would change the mask"):
        write_mask(tmp_path / "a.jpg", np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"mask has shape \(1, 2\) and dtype float64; expected \(H, W\) integers"):
        write_mask(tmp_path / "a.png", np.array([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="num_classes is 300; expected 1 to 256"):
        write_mask(tmp_path / "a.png", np.array([[0, 1]]), 300)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_another_size_names_both(tmp_path):
    with pytest.raises(
        ValueError, match=r"^m\.png is 4 x 6 \(height x width\); expected 4 x 5, as its picture p\.png is$"
    ):
        check_same_size(np.zeros((3, 4, 5)), np.zeros((4, 6)), "p.png", "m.png")
    check_same_size(np.zeros((3, 4, 5)), np.zeros((4, 5)))
