"""Objects: label pictures, samples of some of their objects, boxes of masks that overlap, lists of names."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tinyseg.data import (
    FolderDataset,
    Sample,
    Subset,
    boxes_of,
    boxes_of_masks,
    read_instances,
    read_mask,
    select,
    split,
)

DRAWS = settings(derandomize=True, deadline=None, max_examples=40, database=None)
LABELS = np.array([[0, 7, 7, 0, 200], [0, 7, 0, 0, 200], [3, 0, 0, 0, 7]])
NUMBERED = [[0, 2, 2, 0, 3], [0, 2, 0, 0, 3], [1, 0, 0, 0, 2]]


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    "name, dtype",
    [("a.png", "u1"), ("a.png", "u2"), ("a.tif", "u1"), ("a.tif", "u2"), ("a.tif", "u4"), ("a.tif", "f4")],
)
def test_numbers_with_gaps_are_renumbered_in_rising_order(tmp_path, name, dtype):
    instances = read_instances(put(tmp_path / name, LABELS.astype(dtype)))
    assert instances.dtype == np.int32 and instances.tolist() == NUMBERED


def test_numbers_beyond_16_bits(tmp_path):
    path = put(tmp_path / "a.tif", np.where(LABELS == 7, 2**31 + 5, LABELS).astype(np.uint32))
    assert read_instances(path).tolist() == [[0, 3, 3, 0, 2], [0, 3, 0, 0, 2], [1, 0, 0, 0, 3]]


def test_nothing_and_nothing_but_objects(tmp_path):
    assert read_instances(put(tmp_path / "a.png", np.zeros((2, 3), np.uint8))).tolist() == [[0, 0, 0]] * 2
    assert read_instances(put(tmp_path / "b.png", np.array([[9, 4]], np.uint8))).tolist() == [[2, 1]]


def test_ignored_pixels_belong_to_no_object(tmp_path):
    path = put(tmp_path / "a.png", np.array([[0, 255, 4]], np.uint8))
    assert read_instances(path, ignore_index=255).tolist() == [[0, 0, 1]]


def test_palette_pictures_count_by_their_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 5, 2]], np.uint8))
    image.putpalette([9, 9, 9] * 6)
    image.save(tmp_path / "p.png")
    assert read_instances(tmp_path / "p.png").tolist() == [[0, 2, 1]]


def test_what_is_no_label_picture_is_refused_by_name(tmp_path, rng):
    with pytest.raises(ValueError, match=r"c\.png is a colour picture .*expected a mask"):
        read_instances(put(tmp_path / "c.png", rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"f\.tif holds 0\.5 at row 0, column 1; expected whole numbers"):
        read_instances(put(tmp_path / "f.tif", np.array([[0, 0.5]], np.float32)))
    with pytest.raises(ValueError, match=r"s\.tif holds -3 at row 0, column 1; expected objects' numbers from 0"):
        read_instances(put(tmp_path / "s.tif", np.array([[0, -3]], np.int16)))
    with pytest.raises(ValueError, match=r"j\.jpg is a JPEG file, which changes objects' numbers"):
        read_instances(put(tmp_path / "j.jpg", np.zeros((8, 8), np.uint8)))
    photo = put(tmp_path / "p.png", rng.permutation(2**14).reshape(128, 128).astype(np.uint16))
    with pytest.raises(ValueError, match=r"p\.png holds 16383 different numbers; expected at most 10000 objects"):
        read_instances(photo)
    assert read_instances(photo, most=16383).max() == 16383


# ---- folders -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("a", "b"):
        put(tmp_path / "images" / f"{name}.png", rng.integers(0, 256, LABELS.shape, dtype=np.uint8))
    put(tmp_path / "labels" / "a.png", LABELS.astype(np.uint16))
    put(tmp_path / "labels" / "b.png", np.zeros(LABELS.shape, np.uint8))
    return tmp_path


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_folder_of_label_pictures(folder, cache_bytes):
    dataset = FolderDataset(folder / "images", folder / "labels", instances=True, cache_bytes=cache_bytes)
    for _ in range(2):
        sample = dataset[0]
        assert sample.instances.tolist() == NUMBERED and sample.classes.tolist() == [1, 1, 1]
        assert sample.boxes.tolist() == [[0, 2, 1, 3], [1, 0, 5, 3], [4, 0, 5, 2]] and sample.boxes.dtype == np.float32
        np.testing.assert_array_equal(sample.mask, read_mask(folder / "labels" / "a.png", instances=True))
        np.testing.assert_array_equal(sample.mask, LABELS > 0)
        assert sample.class_names == dataset.class_names == ("background", "object") and dataset.num_classes == 1
        empty = dataset[1]
        assert empty.boxes.shape == (0, 4) and empty.classes.shape == (0,) and empty.instance_masks.shape == (0, 3, 5)
    assert (dataset[0] is dataset[0]) == (cache_bytes > 0)
    assert dataset[0].instances.flags.writeable == (cache_bytes == 0)
    assert Subset(dataset, [1]).class_names == dataset.class_names


def test_without_instances_a_folder_knows_no_objects(folder):
    dataset = FolderDataset(folder / "images", folder / "labels", num_classes=201)
    assert dataset[0].instances is None and dataset[0].boxes is None and dataset.class_names == ()


def test_the_pages_of_a_label_stack(tmp_path):
    stack = np.stack([LABELS, LABELS[::-1]]).astype(np.uint16)
    put(tmp_path / "images" / "s.tif", stack)
    put(tmp_path / "labels" / "s.tif", stack)
    dataset = FolderDataset(tmp_path / "images", tmp_path / "labels", instances=True)
    assert dataset[1].instances.tolist() == NUMBERED[::-1]


# ---- samples -------------------------------------------------------------------------------------------------------


def overlapping():
    """Two objects that share a pixel, and one of no pixels."""
    masks = np.zeros((3, 4, 5), bool)
    masks[0, 1:3, 0:3] = masks[2, 2:4, 2:4] = True
    return masks


def test_explicit_masks_may_overlap():
    sample = Sample(np.zeros((1, 4, 5), np.float32), masks=overlapping(), classes=np.array([1, 2, 1]))
    np.testing.assert_array_equal(sample.instance_masks, overlapping())
    assert boxes_of_masks(sample.instance_masks).tolist() == [[0, 1, 3, 3], [0, 0, 0, 0], [2, 2, 4, 4]]
    assert boxes_of_masks(np.zeros((0, 4, 5), bool)).shape == (0, 4)
    assert Sample(np.zeros((1, 4, 5))).instance_masks is None


def test_some_of_the_objects():
    numbered = np.array(NUMBERED, np.int32)
    sample = Sample(
        np.zeros((1, 3, 5), np.float32),
        instances=numbered,
        classes=np.array([4, 5, 6]),
        boxes=boxes_of(numbered, 3),
        masks=numbered == np.arange(1, 4)[:, None, None],
        crowd=np.array([False, True, False]),
        areas=np.array([1.0, 2, 3]),
    )
    some = sample.with_objects(~sample.crowd)
    assert some.instances.tolist() == [[0, 0, 0, 0, 2], [0, 0, 0, 0, 2], [1, 0, 0, 0, 0]]
    assert some.instances.dtype == np.int32
    assert some.classes.tolist() == [4, 6] and some.areas.tolist() == [1, 3] and not some.crowd.any()
    np.testing.assert_array_equal(some.boxes, sample.boxes[[0, 2]])
    np.testing.assert_array_equal(some.masks, sample.masks[[0, 2]])
    assert sample.with_objects([True] * 3) is sample


def test_more_masks_than_memory_are_refused_before_they_are_made():
    side = 40_000
    empty = np.broadcast_to(np.int32(0), (side, side))
    sample = Sample(np.broadcast_to(np.float32(0), (1, side, side)), name="slide", instances=empty, classes=np.ones(9))
    with pytest.raises(ValueError, match="slide has 9 objects on 40000 x 40000 pixels; expected fewer"):
        sample.instance_masks  # noqa: B018


@DRAWS
@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 4)))
def test_a_label_map_and_its_masks_have_the_same_boxes(labels):
    numbers = np.unique(labels[labels > 0])
    instances = np.searchsorted(numbers, labels).astype(np.int32) + 1
    instances[labels == 0] = 0
    masks = instances == np.arange(1, len(numbers) + 1)[:, None, None]
    boxes = boxes_of(instances, len(numbers))
    np.testing.assert_array_equal(boxes, boxes_of_masks(masks))
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        assert mask[y1:y2, x1:x2].sum() == mask.sum() and mask[y1].any() and mask[:, x2 - 1].any()


# ---- lists of names ------------------------------------------------------------------------------------------------


def test_a_file_of_names_chooses(tmp_path):
    path = tmp_path / "held out.txt"
    path.write_text("# for validation\n\n  c,1.png \nab\n", encoding="utf-8")
    names = ["ab", "b", "c,1", "d"]
    assert select(names, f"@{path}") == [0, 2]
    assert select(names, f"@{path}, d") == [0, 2, 3]
    assert split(names, val=f"@{path}") == ([1, 3], [0, 2])


def test_a_file_of_names_that_does_not_do_is_named(tmp_path):
    path = tmp_path / "names.txt"
    with pytest.raises(FileNotFoundError, match=r"names\.txt does not exist; expected a file of names, one a line"):
        select(["a"], f"@{path}")
    path.write_text("a\nx\ny.png\n")
    with pytest.raises(ValueError, match=r"names\.txt lists x, y\.png; expected names of the 1 pictures \(a\)"):
        select(["a"], f"@{path}")
    path.write_text("# none\n")
    with pytest.raises(ValueError, match=r"names\.txt lists no names; expected one a line"):
        select(["a"], f"@{path}")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"names\.txt is no text file"):
        select(["a"], f"@{path}")
