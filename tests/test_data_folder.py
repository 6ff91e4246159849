"""Folders of pictures and masks: pairing, order, choosing, and errors that name what is missing."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tinyseg.data import FolderDataset, Subset, find_folders, find_pictures, read_picture, select, split
from tinyseg.data.choose import natural_key


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def root(tmp_path, rng):
    """A data folder of three pictures and masks, in raw and membranes."""
    for name in ("1", "2", "10"):
        put(tmp_path / "raw" / f"{name}.tif", rng.integers(0, 256, (8, 9), dtype=np.uint8))
        put(tmp_path / "membranes" / f"{name}.png", rng.integers(0, 2, (8, 9), dtype=np.uint8) * np.uint8(255))
    (tmp_path / "raw" / "README.txt").write_text("about")
    (tmp_path / "raw" / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_pairs_in_natural_order(root):
    dataset = FolderDataset(*find_folders(root))
    assert dataset.names == ("1", "2", "10") and len(dataset) == 3
    for i, name in enumerate(dataset.names):
        sample = dataset[i]
        assert sample.name == name and sample.picture.dtype == np.float32 and sample.mask.dtype == np.uint8
        np.testing.assert_array_equal(sample.picture, read_picture(root / "raw" / f"{name}.tif"))
        stored = np.asarray(Image.open(root / "membranes" / f"{name}.png"))
        np.testing.assert_array_equal(sample.mask, stored // 255)
    assert dataset[-1].name == "10"
    with pytest.raises(IndexError, match="picture 3 was asked for; there are 3"):
        dataset[3]


def test_without_masks_and_with_channels(root):
    dataset = FolderDataset(root / "raw", channels=3)
    assert dataset[0].mask is None and dataset[0].picture.shape == (3, 8, 9)


def test_a_suffix_of_the_masks_names(root):
    for path in list((root / "membranes").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    dataset = FolderDataset(root / "raw", root / "membranes", mask_suffix="_mask")
    assert dataset[2].mask.shape == (8, 9)
    with pytest.raises(ValueError, match="has no mask for 3 of 3 pictures of .*: 1, 2, 10"):
        FolderDataset(root / "raw", root / "membranes")


def test_missing_extra_and_doubled_files_are_named(root, rng):
    put(root / "raw" / "11.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(
        ValueError, match=r"membranes has no mask for 1 of 4 pictures of .*raw: 11 \(any ending\); it holds 1"
    ):
        FolderDataset(root / "raw", root / "membranes")
    put(root / "membranes" / "11.png", np.zeros((8, 9), np.uint8))
    put(root / "membranes" / "12.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(ValueError, match=r"membranes has masks without a picture in .*raw: 12\.png"):
        FolderDataset(root / "raw", root / "membranes")
    put(root / "raw" / "11.tif", np.zeros((8, 9), np.uint8))
    with pytest.raises(ValueError, match=r"raw has both 11\.png and 11\.tif; expected one file a name"):
        FolderDataset(root / "raw")


def test_a_mask_of_another_size_names_both_files(root):
    put(root / "membranes" / "2.png", np.zeros((8, 7), np.uint8))
    dataset = FolderDataset(root / "raw", root / "membranes")
    with pytest.raises(
        ValueError, match=r"2\.png is 8 x 7 \(height x width\); expected 8 x 9, as its picture .*2\.tif is"
    ):
        dataset[1]


def test_empty_and_absent_folders_are_named(root):
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no pictures \(PNG, TIFF, JPEG\); it is empty"):
        FolderDataset(root / "empty")
    (root / "empty" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"empty has no pictures .*; it holds notes\.txt"):
        FolderDataset(root / "empty")
    with pytest.raises(ValueError, match="gone is not there; expected a folder of pictures"):
        FolderDataset(root / "gone")
    with pytest.raises(ValueError, match=r"README\.txt is a file; expected a folder of pictures"):
        FolderDataset(root / "raw" / "README.txt")


def test_other_kinds_of_pictures_are_refused_not_passed_over(root):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "raw" / "3.bmp")
    dataset = FolderDataset(root / "raw")
    with pytest.raises(ValueError, match=r"3\.bmp is a BMP file; expected a PNG, TIFF or JPEG picture"):
        dataset[dataset.names.index("3")]


def test_each_page_is_an_item(tmp_path, rng):
    stack = rng.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    truth = (stack > 100).astype(np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "images" / "volume.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels" / "volume.tif", truth, photometric="minisblack")
    put(tmp_path / "images" / "zoo.png", stack[0])
    put(tmp_path / "labels" / "zoo.png", truth[0])
    dataset = FolderDataset(*find_folders(tmp_path))
    assert dataset.names == ("volume_000", "volume_001", "volume_002", "zoo")
    np.testing.assert_array_equal(dataset[1].picture[0], stack[1] / np.float32(255))
    np.testing.assert_array_equal(dataset[2].mask, truth[2])
    assert select(dataset.names, "volume_1-2") == [1, 2]
    tifffile.imwrite(tmp_path / "labels" / "volume.tif", truth[:2], photometric="minisblack")
    with pytest.raises(
        ValueError, match=r"labels.volume\.tif has 2 pages; expected 3, as its picture .*volume\.tif has"
    ):
        FolderDataset(*find_folders(tmp_path))


def test_the_cache_keeps_what_fits_and_gives_the_same(root):
    plain = FolderDataset(root / "raw", root / "membranes")
    one = plain[0].picture.nbytes + plain[0].mask.nbytes
    cached = FolderDataset(root / "raw", root / "membranes", cache_bytes=2 * one + 1)
    first = [cached[i] for i in range(3)]
    second = [cached[i] for i in range(3)]
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, True, False]
    for i in range(3):
        np.testing.assert_array_equal(cached[i].picture, plain[i].picture)
    with pytest.raises(ValueError, match="read-only"):
        cached[0].picture[:] = 0


# ---- finding folders and files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pictures, masks", [("raw", "membranes"), ("Images", "Labels"), ("imgs", "annotations")])
def test_known_names_of_folders(tmp_path, pictures, masks):
    for name in (pictures, masks, "other"):
        (tmp_path / name).mkdir()
    assert find_folders(tmp_path) == (tmp_path / pictures, tmp_path / masks)


def test_folders_that_are_not_found_list_what_is_there(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        ValueError, match=r"has no folder of pictures .*; it holds train/, val/; give the two folders by .*--masks"
    ):
        find_folders(tmp_path)
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="has no folder of masks that is known by its name"):
        find_folders(tmp_path)
    assert find_folders(tmp_path, masks=False) == (tmp_path / "raw", None)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"has several folders of pictures \(raw, images\)"):
        find_folders(tmp_path)
    with pytest.raises(ValueError, match="gone is not there; expected a folder of data"):
        find_folders(tmp_path / "gone")


def test_a_plain_folder_of_pictures_will_do_without_masks(root):
    assert find_folders(root / "raw", masks=False) == (root / "raw", None)
    with pytest.raises(ValueError, match="no folder of pictures"):
        find_folders(root / "raw")


def test_find_pictures(root):
    raw = root / "raw"
    assert find_pictures([raw]) == [raw / "1.tif", raw / "2.tif", raw / "10.tif"]
    assert find_pictures([str(raw / "1*.tif"), raw / "2.tif", raw / "1.tif"]) == [
        raw / "1.tif",
        raw / "10.tif",
        raw / "2.tif",
    ]
    with pytest.raises(ValueError, match=r"gone\.tif means no picture"):
        find_pictures([raw / "gone.tif"])
    with pytest.raises(ValueError, match=r"x\* means no picture"):
        find_pictures([str(raw / "x*")])
    (raw / "odd[1].png").write_bytes(b"")  # a file is meant by its name before that is taken for a glob
    assert find_pictures([raw / "odd[1].png"]) == [raw / "odd[1].png"]


# ---- choosing ------------------------------------------------------------------------------------------------------

TWENTY = [f"{i:02d}" for i in range(20)]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("00-15", list(range(16))),
        ("16-19", [16, 17, 18, 19]),
        ("0-2", [0, 1, 2]),
        ("07", [7]),
        ("1?", list(range(10, 20))),
        ("18-19, 03 ,0[01]", [0, 1, 3, 18, 19]),
        ("*", list(range(20))),
        ("15-99", [15, 16, 17, 18, 19]),
    ],
)
def test_select(pattern, expected):
    assert select(TWENTY, pattern) == expected


def test_select_with_words_before_the_number():
    names = ["slice_1", "slice_2", "slice_10", "other_2", "2020-01"]
    assert select(names, "slice_2-slice_10") == [1, 2] == select(names, "slice_2-10")
    assert select(names, "2020-01") == [4]  # a name before a range
    with pytest.raises(ValueError, match=r"'1-3' chooses none of 5 pictures \(slice_1, .*2020-01\)"):
        select(names, "1-3")


@pytest.mark.parametrize("pattern, part", [("20-30", "20-30"), ("5-3", "5-3"), ("x", "x"), ("", ""), ("01,,02", "")])
def test_a_part_that_chooses_nothing_is_named(pattern, part):
    with pytest.raises(ValueError, match=f"^{part!r} chooses none of 20 pictures"):
        select(TWENTY, pattern)


def test_split_by_patterns():
    assert split(TWENTY, "00-15", "16-19") == (list(range(16)), [16, 17, 18, 19])
    assert split(TWENTY, train="00-15") == (list(range(16)), [16, 17, 18, 19])
    assert split(TWENTY, val="0?") == (list(range(10, 20)), list(range(10)))
    assert split(TWENTY, "00", "01") == ([0], [1])
    with pytest.raises(ValueError, match="05, 06 would be trained on and validated on"):
        split(TWENTY, "00-06", "05-19")
    with pytest.raises(ValueError, match="none of 20 pictures is left to train on"):
        split(TWENTY, val="*")


@pytest.mark.parametrize("fraction, count", [(0.2, 4), (0.01, 1), (0, 0), (0.9, 18)])
def test_split_by_fraction_and_seed(fraction, count):
    train, val = split(TWENTY, fraction=fraction, seed=3)
    assert len(val) == count and sorted(train + val) == list(range(20))
    assert split(TWENTY, fraction=fraction, seed=3) == (train, val)
    if count == 4:
        assert split(TWENTY, fraction=fraction, seed=4)[1] != val
    with pytest.raises(ValueError, match=r"fraction is 1\.5"):
        split(TWENTY, fraction=1.5)


def test_subset(root):
    dataset = FolderDataset(root / "raw", root / "membranes")
    part = Subset(dataset, [2, 0])
    assert len(part) == 2 and part.names == ("10", "1") and part[0].name == "10" and part.num_classes == 1
    with pytest.raises(ValueError, match="indices run from 0 to 3; there are 3 items"):
        Subset(dataset, [0, 3])


def test_natural_key():
    names = ["b", "a10", "a2", "A1", "2", "10", "02"]
    assert sorted(names, key=natural_key) == ["02", "2", "10", "A1", "a2", "a10", "b"]
