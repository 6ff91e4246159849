"""COCO's annotation files: read, and everything in them checked before a picture is opened.

The format is that of https://cocodataset.org/#format-data: ``images``, ``annotations`` (objects) and ``categories``.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tinyseg.data.run_lengths import check_runs, uncompress


@dataclass(frozen=True)
class CocoTruth:
    """What an annotation file says.

    Parameters
    ----------
    images : list of dict
        ``id``, ``file_name``, ``height`` and ``width`` of each.
    objects : list of list of dict
        The annotations of each image.
    class_names : tuple of str
        The background's, then the categories' names by rising id.
    category_ids : tuple of int
        Id of class 1, 2, ...
    masks : bool
        Whether the objects have masks.
    """

    images: list
    objects: list
    class_names: tuple
    category_ids: tuple
    masks: bool


def read_coco(path, masks=None):
    """Read and check an annotation file.

    Parameters
    ----------
    path : str or path-like
        The JSON file.
    masks : bool, optional
        As for `tinyseg.data.CocoDataset`.

    Returns
    -------
    CocoTruth
        Its contents.

    Raises
    ------
    ValueError
        If something in it is wrong; one sentence that names the file and the image or annotation.
    OSError
        If it cannot be read.
    """
    try:
        return _checked(_load(path), masks)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _load(path):
    """Return the JSON object in a file."""
    try:
        found = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(path)} does not exist; expected a COCO annotation file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(
            f"this is a JSON {'list, as of results' if isinstance(found, list) else 'value'}; "
            "expected an object with images, annotations and categories"
        )
    for key in ("images", "annotations", "categories"):
        if key not in found:
            raise ValueError(f"there are no {key!r}; expected images, annotations and categories")
        if not isinstance(found[key], list) or not all(isinstance(entry, dict) for entry in found[key]):
            raise ValueError(f"{key!r} is no list of objects")
    return found


def _checked(found, masks):
    """Return what the JSON object says as `CocoTruth`."""
    images = _by_id("image", found["images"])
    if not images:
        raise ValueError("there are no images in it; expected at least one")
    for number, image in images.items():
        _check_image(number, image)
    categories = _by_id("category", found["categories"])
    for number, category in categories.items():
        if not isinstance(category.get("name"), str):
            raise ValueError(f"category {number} has no name")
    annotations = _by_id("annotation", found["annotations"])
    masks = _have_masks(annotations, masks)
    objects: dict = {number: [] for number in images}
    for number, annotation in annotations.items():
        try:
            _check_annotation(annotation, images, categories, masks)
        except ValueError as error:
            raise ValueError(f"annotation {number} {error}") from None
        objects[annotation["image_id"]].append(annotation)
    ids = tuple(sorted(categories))
    names = ("background", *(categories[number]["name"] for number in ids))
    return CocoTruth(list(images.values()), list(objects.values()), names, ids, masks)


def _by_id(what, entries):
    """Return {id: entry}; each id must be a whole number and occur once."""
    found = {}
    for place, entry in enumerate(entries):
        number = entry.get("id")
        if type(number) is not int:
            raise ValueError(f"{what} number {place} of the list has id {_short(number)}; expected a whole number")
        if number in found:
            raise ValueError(f"{what} {number} is there twice")
        found[number] = entry
    return found


def _check_image(number, image):
    """Check an image's name and size."""
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        raise ValueError(f"image {number} has file_name {_short(image.get('file_name'))}; expected the name of a file")
    for side in ("height", "width"):
        if type(image.get(side)) is not int or not 0 < image[side] < 2**16:
            raise ValueError(f"image {number} has {side} {_short(image.get(side))}; expected a whole number from 1")


def _have_masks(annotations, masks):
    """Return whether masks are to be read: where that was not said, if the annotations have some."""
    if masks is False:
        return False
    without = [number for number, annotation in annotations.items() if not annotation.get("segmentation")]
    if masks is None and len(without) == len(annotations):
        return not annotations
    if without:
        raise ValueError(f"annotation {without[0]} has no segmentation; expected one each (or masks=False: boxes only)")
    return True


def _check_annotation(annotation, images, categories, masks):
    """Check one annotation; the message of the error goes on from its name."""
    for key, what, known in (("image_id", "an image", images), ("category_id", "a category", categories)):
        if type(annotation.get(key)) is not int or annotation[key] not in known:
            raise ValueError(f"has {key} {_short(annotation.get(key))}; expected {what} of this file")
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"has iscrowd {_short(annotation['iscrowd'])}; expected 0 or 1")
    box = annotation.get("bbox")
    if box is None and not masks:
        raise ValueError("has no bbox")
    if box is not None and not (_numbers(box) and len(box) == 4 and min(box[2:]) >= 0):
        raise ValueError(f"has bbox {_short(box)}; expected [x, y, width, height]")
    if masks:
        image = images[annotation["image_id"]]
        _check_segmentation(annotation["segmentation"], image["height"], image["width"])


def _check_segmentation(segmentation, height, width):
    """Check polygons or run-lengths: what COCO's own code is given unchecked, it may crash on."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not _numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError(f"has polygon {_short(polygon)}; expected [x1, y1, x2, y2, x3, y3, ...]")
            for side, places in ((width, polygon[::2]), (height, polygon[1::2])):
                if min(places) < -side or max(places) > 2 * side:
                    far = next(place for place in places if not -side <= place <= 2 * side)
                    raise ValueError(f"has a polygon that reaches {far}, far outside its {height} x {width} picture")
        return
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), (list, str)):
        raise ValueError(f"has segmentation {_short(segmentation)}; expected polygons or run-lengths")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"has run-lengths of size {_short(segmentation.get('size'))}; expected [{height}, {width}]")
    counts = segmentation["counts"]
    try:
        check_runs(uncompress(counts) if isinstance(counts, str) else counts, height, width)
    except ValueError as error:
        raise ValueError(f"has run-lengths whose counts {error}") from None


def _numbers(value):
    """Return whether a JSON value is a list of finite numbers, none of them absurd."""
    return isinstance(value, list) and all(type(number) in (int, float) and abs(number) < 1e9 for number in value)


def _short(value):
    """Return a JSON value as text, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
