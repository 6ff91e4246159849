"""COCO data sets: masks as pycocotools draws them, in little memory, and errors that name the annotation."""

import copy
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from tinyseg.data import CocoDataset, DetectionBatches, RunLengthMasks, Subset, detection_augmentation
from tinyseg.data.run_lengths import check_runs, uncompress

DRAWS = settings(derandomize=True, deadline=None, max_examples=40, database=None)
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]
#: What covers rows 1 and 2 of columns 1 to 3 in 5 x 6 pixels, counted down the columns.
RUNS = [6, 2, 3, 2, 3, 2, 12]


def compressed(mask):
    return mask_tools.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def truth():
    """Return an annotation file's contents: three pictures, the second without objects."""
    column = np.zeros((5, 6), bool)
    column[1:, 4] = True
    images = [
        {"id": 40, "file_name": "b.png", "height": 5, "width": 6},
        {"id": 7, "file_name": "a.png", "height": 3, "width": 4},
        {"id": 9, "file_name": "c.png", "height": 5, "width": 6},
    ]
    polygons = {"segmentation": [SQUARE, [4, 3, 6, 3, 6, 5, 4.5, 5]], "bbox": [1, 1, 5, 4], "area": 9.5}
    runs = {"segmentation": {"size": [5, 6], "counts": RUNS}, "bbox": [1, 1, 3, 2], "iscrowd": 1}
    text = {"segmentation": {"size": [5, 6], "counts": compressed(column)}, "area": 4}
    annotations = [
        {"id": 1, "image_id": 40, "category_id": 8, **polygons},
        {"id": 2, "image_id": 9, "category_id": 3, **runs},
        {"id": 30, "image_id": 40, "category_id": 3, **text},
    ]
    categories = [{"id": 8, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "cow"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def folder(tmp_path, rng):
    for name, shape in (("a", (3, 4, 3)), ("b", (5, 6)), ("c", (5, 6, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder, contents):
    path = folder / "instances.json"
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    return path


def open_data(folder, contents=None, **options):
    return CocoDataset(write(folder, truth() if contents is None else contents), folder, **options)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_pictures_classes_boxes_and_masks(folder, cache_bytes, capfd):
    data = open_data(folder, cache_bytes=cache_bytes)
    assert len(data) == 3 and data.names == ("b", "a", "c") and data.image_ids == (40, 7, 9)
    assert data.class_names == ("background", "dog", "cat", "cow") and data.category_ids == (3, 8, 90)
    assert data.num_classes == 4
    for _ in range(2):
        first, empty, crowd = (data[i] for i in range(3))
        assert first.picture.shape == (3, 5, 6) and first.picture.dtype == np.float32 and first.image_id == 40
        assert first.classes.tolist() == [2, 1] and first.classes.dtype == np.int64
        assert first.boxes.tolist() == [[1, 1, 6, 5], [4, 1, 5, 5]] and first.boxes.dtype == np.float32
        assert first.areas.tolist() == [9.5, 4] and first.crowd.tolist() == [False, False]
        assert first.class_names == data.class_names
        assert empty.instance_masks.shape == (0, 3, 4) and empty.boxes.shape == (0, 4) and empty.classes.shape == (0,)
        assert crowd.crowd.tolist() == [True] and crowd.areas.tolist() == [6] and crowd.image_id == 9
        expected = np.zeros((5, 6), bool)
        expected[1:3, 1:4] = True
        np.testing.assert_array_equal(crowd.instance_masks, expected[None])
    assert (data[0] is data[0]) == (cache_bytes > 0)
    assert capfd.readouterr().out == ""
    part = Subset(data, [2])
    assert (part.class_names, part.category_ids, part.num_classes) == (data.class_names, data.category_ids, 4)
    with pytest.raises(IndexError, match="picture 3 was asked for; there are 3"):
        data[3]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools' decode
def test_masks_are_those_of_pycocotools(folder, capfd):
    data = open_data(folder)
    theirs = COCO(str(data.path))
    capfd.readouterr()
    for i, number in enumerate(data.image_ids):
        masks = data[i].instance_masks
        for mask, annotation in zip(masks, theirs.loadAnns(theirs.getAnnIds(imgIds=number)), strict=True):
            np.testing.assert_array_equal(mask, theirs.annToMask(annotation))
    assert data[0].instance_masks[0].sum() > 6  # both polygons


def test_boxes_only_needs_neither_masks_nor_pycocotools(folder, monkeypatch):
    contents = truth()
    contents["annotations"][2]["bbox"] = [4, 1, 1, 4]
    data = open_data(folder, contents)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"COCO's masks need pycocotools: pip install 'tinyseg\[coco\]'"):
        open_data(folder, contents)
    boxes = open_data(folder, contents, masks=False)
    assert boxes[0].instance_masks is None and boxes[2].areas.tolist() == [6]
    monkeypatch.undo()
    np.testing.assert_array_equal(boxes[0].boxes, data[0].boxes)
    for annotation in contents["annotations"]:
        annotation["segmentation"] = []
    assert open_data(folder, contents)[0].masks is None
    with pytest.raises(ValueError, match="annotation 1 has no segmentation; expected one each"):
        open_data(folder, contents, masks=True)


def test_training_leaves_out_crowds_and_what_covers_nothing(folder):
    contents = truth()
    empty = {"bbox": [2, 2, 0, 1], "segmentation": [SQUARE]}
    tiny = {"bbox": [2, 2, 0.1, 0.1], "segmentation": [[2, 2, 2.1, 2, 2.1, 2.1]]}
    for number, annotation in enumerate((empty, tiny), 50):
        contents["annotations"].append({"id": number, "image_id": 9, "category_id": 8, **annotation})
    data = open_data(folder, contents)
    assert data[2].classes.tolist() == [1, 2, 2]
    assert data[2].instance_masks[2].sum() == 0  # COCO has such polygons
    for kind in (None, "strong"):
        augment = None if kind is None else detection_augmentation(kind)
        _, (target,) = DetectionBatches(Subset(data, [2]), 1, augment=augment)[0]
        expected = [] if kind is None else [2]  # its box is drawn anew, around the mask
        assert target["labels"].tolist() == expected and len(target["masks"]) == len(expected)


def test_names_with_folders_where_names_alone_would_not_do(folder):
    contents = truth()
    (folder / "x").mkdir()
    (folder / "x" / "a.png").write_bytes((folder / "c.png").read_bytes())
    contents["images"][2]["file_name"] = "x/a.png"
    assert open_data(folder, contents).names == ("b", "a", "x/a")


# ---- errors --------------------------------------------------------------------------------------------------------


def changed(path, value):
    """Return the contents with one entry set, or removed where the value is None."""
    contents = copy.deepcopy(truth())
    place = contents
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return contents


FIRST, SECOND, THIRD = (("annotations", k) for k in range(3))
NAN = float("nan")


@pytest.mark.parametrize(
    "contents, words",
    [
        ("{", r"instances\.json: this is no JSON: "),
        ("[" * 100_000, "this is no JSON"),
        ([], "this is a JSON list, as of results; expected an object with images, annotations and categories"),
        (changed(["annotations"], None), "there are no 'annotations'; expected images, annotations and categories"),
        (changed(["categories"], {"a": 1}), "'categories' is no list of objects"),
        (changed(["images", 0], 3), "'images' is no list of objects"),
        (changed(["images"], []), "there are no images"),
        (changed(["images", 1, "id"], "7"), 'image number 1 of the list has id "7"; expected a whole number'),
        (changed(["images", 1, "id"], 40), "image 40 is there twice"),
        (changed(["images", 1, "file_name"], None), "image 7 has file_name null"),
        (changed(["images", 1, "height"], 0), "image 7 has height 0; expected a whole number from 1"),
        (
            changed(["images", 0, "file_name"], "z.png"),
            r"does not have 1 of the 3 pictures of .*instances\.json: z\.png",
        ),
        (changed(["categories", 0, "name"], None), "category 8 has no name"),
        (changed(["annotations", 0, "id"], None), "annotation number 0 of the list has id null"),
        (changed([*FIRST, "id"], 30), "annotation 30 is there twice"),
        (changed([*FIRST, "image_id"], 41), "annotation 1 has image_id 41; expected an image of this file"),
        (changed([*FIRST, "image_id"], [4]), r"annotation 1 has image_id \[4\]"),
        (changed([*THIRD, "category_id"], 4), "annotation 30 has category_id 4; expected a category of this file"),
        (changed([*SECOND, "iscrowd"], 2), "annotation 2 has iscrowd 2; expected 0 or 1"),
        (changed([*FIRST, "bbox"], [1, 1, -5, 4]), r"annotation 1 has bbox \[1, 1, -5, 4\]; expected \[x, y, width"),
        (changed([*FIRST, "bbox"], [1, NAN, 5, 4]), r"annotation 1 has bbox \[1, NaN, 5, 4\]"),
        (changed([*FIRST, "segmentation"], None), "annotation 1 has no segmentation; expected one each .*masks=False"),
        (changed([*FIRST, "segmentation"], [[1, 1, 2, 2]]), r"annotation 1 has polygon \[1, 1, 2, 2\]; expected \[x1"),
        (changed([*FIRST, "segmentation"], [[*SQUARE, 1]]), "annotation 1 has polygon"),
        (changed([*FIRST, "segmentation"], SQUARE), "annotation 1 has polygon 1; expected"),
        (changed([*FIRST, "segmentation"], [[*SQUARE[:7], NAN]]), "annotation 1 has polygon .*NaN"),
        (
            changed([*FIRST, "segmentation"], [[*SQUARE, 1, 5e8]]),
            r"reaches 500000000\.0, far outside its 5 x 6 picture",
        ),
        (
            changed([*FIRST, "segmentation"], {"counts": 3}),
            "annotation 1 has segmentation .*expected polygons or run-l",
        ),
        (
            changed([*SECOND, "segmentation", "size"], [6, 5]),
            r"annotation 2 has run-lengths of size \[6, 5\]; .*\[5, 6\]",
        ),
        (changed([*SECOND, "segmentation", "counts"], [6, 2]), "annotation 2 has run-lengths whose counts count 8 pix"),
        (changed([*SECOND, "segmentation", "counts"], [40, -10]), "annotation 2 has run-lengths whose counts hold 40"),
        (changed([*SECOND, "segmentation", "counts"], [6.5]), "counts hold something other than whole numbers"),
        (changed([*SECOND, "segmentation", "counts"], [10**40]), "counts hold something other than whole numbers"),
        (
            changed([*THIRD, "segmentation", "counts"], "zz"),
            "annotation 30 has run-lengths whose counts are no text of run-lengths",
        ),
        (changed([*THIRD, "segmentation", "counts"], "é\ud800"), "annotation 30 has run-lengths whose counts "),
        (changed([*THIRD, "segmentation", "counts"], ""), "annotation 30 has run-lengths whose counts count 0 pixels"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(folder, contents, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_data(folder, contents)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert "instances.json" in str(caught.value)


def test_files_that_are_missing_or_of_another_size_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist; expected a COCO annotation file"):
        CocoDataset(folder / "none.json", folder)
    data = open_data(folder, changed(["images", 1, "width"], 5))
    with pytest.raises(
        ValueError, match=r"a\.png is 3 x 4 \(height x width\); expected 3 x 5, as .*instances\.json says of image 7"
    ):
        data[1]


# ---- run-lengths ---------------------------------------------------------------------------------------------------


@st.composite
def stacks(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.random((draw(st.integers(0, 3)), height, width)) < draw(st.sampled_from([0, 0.02, 0.5, 1]))


@DRAWS
@given(stacks())
def test_masks_survive_as_run_lengths(masks):
    runs = [mask_tools.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    kept = RunLengthMasks(runs, masks.shape[1:])
    assert kept.shape == masks.shape and len(kept) == len(masks)
    np.testing.assert_array_equal(np.asarray(kept), masks)
    assert np.asarray(kept).dtype == bool and np.asarray(kept, np.uint8).dtype == np.uint8
    assert kept.areas().tolist() == masks.sum(axis=(1, 2)).tolist()
    for one, mask in zip(kept, masks, strict=True):
        np.testing.assert_array_equal(one, mask)
    odd = np.arange(len(masks)) % 2 == 1
    np.testing.assert_array_equal(np.asarray(kept[odd]), masks[odd])
    for mask, run in zip(masks, runs, strict=True):
        numbers = uncompress(run["counts"].decode())
        check_runs(numbers, *mask.shape)
        changes = np.flatnonzero(np.diff(mask.ravel(order="F").astype(int), prepend=0))
        assert np.cumsum(numbers)[:-1].tolist() == changes.tolist()


def test_a_text_of_run_lengths_by_hand():
    # 6 is '6'; 2; 3; then 2 - 2 = 0, 3 - 3 = 0, 2 - 2 = 0, 12 - 3 = 9
    assert uncompress("6230009").tolist() == RUNS
    assert uncompress("P1`1").tolist() == [32, 48]  # 'P' is 0 and more follows, '1' is 1, times 32; '`' is 16 and more
    assert uncompress("").tolist() == []


@pytest.mark.parametrize("text", ["P", "6 2", "6~", "PPPPPPPPPP1", "é"])
def test_a_text_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="are no text of run-lengths|hold a number that is too long"):
        uncompress(text)


def test_masks_take_little_memory():
    """Fifty objects on 640 x 480 pixels."""
    rows, columns = np.mgrid[:480, :640]
    discs = [(rows - 9 * k) ** 2 + (columns - 12 * k) ** 2 < 50**2 for k in range(50)]
    kept = RunLengthMasks([mask_tools.encode(np.asfortranarray(disc, np.uint8)) for disc in discs], (480, 640))
    assert kept.nbytes < 40_000 < 50 * 480 * 640 / 100
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(kept, copy=False)
