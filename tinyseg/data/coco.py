"""Data sets in COCO's format: photos, and one JSON file with the objects in all of them."""

import operator
from pathlib import Path

import numpy as np

from tinyseg.data.cache import SampleCache
from tinyseg.data.choose import some
from tinyseg.data.coco_json import read_coco
from tinyseg.data.pictures import read_picture
from tinyseg.data.run_lengths import RunLengthMasks, mask_tools
from tinyseg.data.sample import Sample


class CocoDataset:
    """Pictures with boxes, classes and masks from a COCO annotation file (``instances_train2017.json`` and the like).

    Polygons become masks as pycocotools draws them. The boxes are those of the file, also where they differ from the
    masks by parts of a pixel, and crowds are kept and marked: so that scores are COCO's. COCO itself has boxes without
    width or height, and polygons that cover no pixel; these objects are kept here too, and `DetectionBatches` leaves
    them out. Pictures without objects are kept. Everything in the file is checked at once, and masks are
    drawn when a picture is asked for.

    Parameters
    ----------
    annotation_json : str or path-like
        The file with images, annotations and categories.
    pictures_dir : str or path-like
        The folder that its file names start from.
    channels : {None, 1, 3}
        As for `read_picture`; COCO has some grey photos among the coloured ones.
    cache_bytes : int
        How much memory pictures that were read may keep, so that they are not read again. Those read first are kept.
    masks : bool, optional
        False: boxes only, which needs no pycocotools. True: each object must have a mask. Without it, there are masks
        where the annotations have segmentations.

    Attributes
    ----------
    names : tuple of str
        Names of the files without their endings; with their folders where names alone would not do.
    class_names : tuple of str
        ``"background"``, and the names of the categories, by rising id: class 1 is the category of the lowest id.
    category_ids : tuple of int
        The id of class 1, 2, ..., as results files need it.
    image_ids : tuple of int
        The id of each picture.
    num_classes : int
        With the background.
    picture_paths : tuple of pathlib.Path
        The files.

    Raises
    ------
    ValueError
        If pictures are missing, or something in the file is wrong; one sentence that names the file and the
        annotation. When a picture is read: if its size is another than the file says.
    ImportError
        If there are masks and pycocotools is not installed.
    OSError
        If the file cannot be read.
    """

    def __init__(self, annotation_json, pictures_dir, *, channels=3, cache_bytes=0, masks=None):
        self.path, self.channels = Path(annotation_json), channels
        truth = read_coco(annotation_json, masks)
        self._masks = truth.masks
        if self._masks:
            mask_tools()
        self._images, self._objects = truth.images, truth.objects
        self.class_names, self.category_ids = truth.class_names, truth.category_ids
        self.num_classes = len(self.class_names)
        self._class_of = {number: k for k, number in enumerate(self.category_ids, 1)}
        self.image_ids = tuple(image["id"] for image in self._images)
        files = [image["file_name"] for image in self._images]
        self.picture_paths = tuple(Path(pictures_dir) / file for file in files)
        self.names = _names(files)
        missing = [file for file, path in zip(files, self.picture_paths, strict=True) if not path.is_file()]
        if missing:
            raise ValueError(
                f"{pictures_dir} does not have {len(missing)} of the {len(files)} pictures of {annotation_json}: "
                f"{some(missing)}"
            )
        self._cache = SampleCache(cache_bytes)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, i):
        """Return item ``i`` as a `Sample`; its arrays may be read-only."""
        index = operator.index(i)
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {i} was asked for; there are {len(self)}")
        return self._cache.get(index % len(self), self._read)

    def _read(self, index):
        image, objects = self._images[index], self._objects[index]
        picture = read_picture(self.picture_paths[index], self.channels)
        size = image["height"], image["width"]
        if picture.shape[1:] != size:
            raise ValueError(
                f"{self.picture_paths[index]} is {picture.shape[1]} x {picture.shape[2]} (height x width); expected "
                f"{size[0]} x {size[1]}, as {self.path} says of image {image['id']}"
            )
        masks = RunLengthMasks([_encode(entry, *size) for entry in objects], size) if self._masks else None
        boxes = _boxes(objects, masks)
        covered = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if masks is None else masks.areas()
        areas = [entry.get("area") for entry in objects]
        areas = [own if _is_area(own) else pixels for own, pixels in zip(areas, covered, strict=True)]
        return Sample(
            picture=picture,
            name=self.names[index],
            classes=np.array([self._class_of[entry["category_id"]] for entry in objects], np.int64),
            boxes=boxes.astype(np.float32),
            class_names=self.class_names,
            masks=masks,
            crowd=np.array([entry.get("iscrowd", 0) for entry in objects], bool),
            image_id=image["id"],
            areas=np.array(areas, np.float64),
        )


def _names(files):
    """Return the files' names without endings, with folders where two would be the same."""
    paths = [Path(file.replace("\\", "/")) for file in files]
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return tuple(stems)
    return tuple(path.with_suffix("").as_posix() for path in paths)


def _encode(annotation, height, width):
    """Return an annotation's mask as compressed run-lengths, as pycocotools' ``COCO.annToRLE`` does."""
    tools, segmentation = mask_tools(), annotation["segmentation"]
    if isinstance(segmentation, list):
        return tools.merge(tools.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return tools.frPyObjects(segmentation, height, width)
    return {"size": segmentation["size"], "counts": segmentation["counts"].encode("ascii")}


def _boxes(objects, masks):
    """Return (K, 4) float64 corners: the file's, or where it has none, those around the masks."""
    boxes = np.zeros((len(objects), 4))
    for k, entry in enumerate(objects):
        box = entry.get("bbox")
        x, y, width, height = mask_tools().toBbox(masks.runs[k]) if box is None else box
        boxes[k] = x, y, x + width, y + height
    return boxes


def _is_area(value):
    """Return whether a JSON value is a number that can be an area."""
    return type(value) in (int, float) and 0 <= value < 1e12
