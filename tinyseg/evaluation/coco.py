"""COCO's average precision of boxes and masks, computed by pycocotools.

Detections of a class are sorted by score, those of all pictures together; each in turn finds an object that nothing
has found yet and that it overlaps by at least a threshold (IoU), or is a false alarm. The average precision of that
threshold is the mean of the precision, never rising with recall, at the 101 recalls 0, 0.01, ..., 1. It is 1 where all
objects are found and every false alarm scores below them.

- ``AP`` averages over the ten thresholds 0.50, 0.55, ..., 0.95 and over the classes that have objects; ``AP50`` and
  ``AP75`` are those of one threshold.
- ``APs``, ``APm`` and ``APl`` count objects of less than 32 x 32 pixels, up to 96 x 96, and above.
- ``AR`` is the highest recall reached, averaged in the same way.

Of each picture and class, the ``max_detections`` of highest score count. COCO's own tables stop at 100, which is too
few for pictures with hundreds of cells; pycocotools' ``summarize()`` prints average precision at 100 whatever it is
told. Crowds are neither found nor missed: what lies in one does not count. Without any object, a score is None.
"""

import contextlib
import io

import numpy as np

from tinyseg.data.run_lengths import RunLengthMasks, mask_tools
from tinyseg.evaluation.coco_results import category_of, run_lengths, to_results, write_results

SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


class CocoScores:
    """Collects the detections and the truth of one picture after another; keeps run-lengths, never pictures.

    Parameters
    ----------
    class_names : sequence of str
        Names of class 0 (the background), 1, ...; taken from the first sample that has some where none are given.
    max_detections : int
        How many detections of a picture and class count, those of highest score.
    category_ids : sequence of int
        Category ids of class 1, 2, ... in a results file, where the data set has its own; by default 1, 2, ...
    threshold : float
        Probability from which a pixel belongs to a predicted mask.

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    ValueError
        If ``max_detections`` is less than 1.
    """

    def __init__(self, class_names=(), max_detections=300, category_ids=(), threshold=0.5):
        mask_tools()  # before hours of detecting, not after
        if isinstance(max_detections, bool) or not isinstance(max_detections, (int, np.integer)) or max_detections < 1:
            raise ValueError(f"max_detections is {max_detections!r}; expected a whole number of at least 1")
        self.class_names, self.category_ids = tuple(class_names), tuple(int(i) for i in category_ids)
        self.max_detections, self.threshold = int(max_detections), threshold
        self._pictures, self._truth, self._found = {}, [], []
        # whether there are masks: None as long as there was nothing that could have one
        self._masks_found = self._masks_true = None

    def update(self, prediction, sample):
        """Add a picture.

        Parameters
        ----------
        prediction : dict of ndarray or Tensor
            ``boxes``, ``labels``, ``scores`` and perhaps ``masks``, as for `to_results`.
        sample : tinyseg.data.Sample
            The picture with its truth: ``boxes`` and ``classes`` of the objects, and ``masks`` or ``instances``.

        Raises
        ------
        TypeError, ValueError
            If an array has another type or shape than expected, or the picture was added before.
        """
        number = self.image_id(sample)
        entries = to_results(prediction, number, self.category_ids, self.threshold)
        self._add(entries, number, sample, True if prediction.get("masks") is not None else _have_masks(entries))

    def update_results(self, entries, sample):
        """Add a picture whose detections come from a results file.

        Parameters
        ----------
        entries : list of dict
            The picture's detections, from `read_results`.
        sample : tinyseg.data.Sample
            The picture with its truth.

        Raises
        ------
        ValueError
            If a mask has another size than the picture, or the picture was added before.
        """
        self._add(entries, self.image_id(sample), sample, _have_masks(entries))

    def image_id(self, sample):
        """Return the number under which a picture would be added now.

        Parameters
        ----------
        sample : tinyseg.data.Sample
            The picture.

        Returns
        -------
        int
            Its own ``image_id``, or else its place in the order of adding, from 1.

        Raises
        ------
        ValueError
            If a picture of that number was added before.
        """
        number = len(self._pictures) + 1 if sample.image_id is None else int(sample.image_id)
        if number in self._pictures:
            raise ValueError(f"picture {number} ({sample.name}) was added before")
        return number

    def _add(self, entries, number, sample, with_masks):
        """Add a picture's detections and its truth; nothing is added where something is wrong."""
        size = list(sample.picture.shape[1:])
        for entry in entries:
            if entry.get("segmentation", {"size": size})["size"] != size:
                raise ValueError(
                    f"a mask of picture {number} ({sample.name}) is {entry['segmentation']['size']} pixels "
                    f"(H, W); expected {size}, as the picture"
                )
        masks_found = _agree("predictions", self._masks_found, with_masks, sample)
        truth = _truth(sample, number, self.category_ids)
        masks_true = _agree("samples", self._masks_true, _have_masks(truth), sample)
        self._masks_found, self._masks_true = masks_found, masks_true
        self.class_names = self.class_names or tuple(sample.class_names)
        self._pictures[number] = {"id": number, "height": size[0], "width": size[1]}
        self._found += entries
        self._truth += truth

    def summary(self):
        """Return all scores.

        Returns
        -------
        dict
            ``box`` and, where there are masks, ``mask``: dicts with ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``,
            ``APl`` and ``AR`` from 0 to 1, None where there are no objects to find. ``per_class``: from each class's
            name to its number of ``objects``, ``box`` and ``mask``. ``pictures``, ``objects`` (without crowds),
            ``detections``, ``max_detections``: numbers. Ready for JSON.
        """
        categories = sorted({entry["category_id"] for entry in self._truth})
        named = [category_of(label, self.category_ids) for label in range(1, len(self.class_names))]
        objects = [entry["category_id"] for entry in self._truth if not entry["iscrowd"]]
        summary = {
            "pictures": len(self._pictures),
            "objects": len(objects),
            "detections": len(self._found),
            "max_detections": self.max_detections,
        }
        names = self._names(sorted({*categories, *named}))
        per_class = {name: {"objects": objects.count(category)} for category, name in names.items()}
        wanted = ["box", "mask"] if self._masks_found and self._masks_true is not False else ["box"]
        for kind in wanted:
            precision, recall = self._average(kind, categories)
            summary[kind] = _scores(precision, recall)
            for category, name in names.items():
                here = [categories.index(category)] if category in categories else []
                per_class[name][kind] = _scores(precision[:, :, here], recall[:, here])
        return {**summary, "per_class": per_class}

    def _names(self, categories):
        """Return {category id: name}, the number where a name is missing, and added to it where two are the same."""
        ids = self.category_ids or range(1, len(self.class_names))
        known = dict(zip(ids, self.class_names[1:], strict=False))
        names = {category: str(known.get(category, f"class {category}")) for category in categories}
        given = list(names.values())
        return {c: name if given.count(name) == 1 else f"{name} ({c})" for c, name in names.items()}

    def _average(self, kind, categories):
        """Return precision (thresholds, recalls, classes, sizes) and recall (thresholds, classes, sizes)."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not categories:
            return -np.ones((10, 101, 0, 4)), -np.ones((10, 0, 4))
        tables = []
        for entries in (self._truth, self._found):
            table = COCO()
            # Ids begin with 1: a match with number 0 is taken for none. Copied, since entries are written to.
            annotations = [{"id": i, "iscrowd": 0, **entry} for i, entry in enumerate(entries, 1)]
            table.dataset = {
                "images": list(self._pictures.values()),
                "categories": [{"id": category} for category in categories],
                "annotations": annotations,
            }
            tables.append(table)
        _fill_areas(tables[1].dataset["annotations"], kind)
        with contextlib.redirect_stdout(io.StringIO()):
            for table in tables:
                table.createIndex()
            evaluation = COCOeval(*tables, "segm" if kind == "mask" else "bbox")
            evaluation.params.maxDets = sorted({1, min(100, self.max_detections), self.max_detections})
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]

    def results(self):
        """Return all detections in COCO's results format.

        Returns
        -------
        list of dict
            As `to_results` gives them, picture after picture.
        """
        return [dict(entry) for entry in self._found]

    def write_results(self, path):
        """Write all detections as COCO's results JSON.

        Parameters
        ----------
        path : str or path-like
            The file.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_results(path, self._found)


def _truth(sample, number, category_ids):
    """Return the objects of a sample as COCO annotations."""
    lengths = _object_masks(sample)
    if sample.classes is None or (sample.boxes is None and lengths is None):
        raise ValueError(f"picture {number} ({sample.name}) has no true objects; expected classes, and boxes or masks")
    if sample.boxes is None:
        boxes = [mask_tools().toBbox(mask).tolist() for mask in lengths or ()]
    else:
        x1, y1, x2, y2 = sample.boxes.astype(np.float64).T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    truth = []
    for i, (label, box) in enumerate(zip(sample.classes, boxes, strict=True)):
        entry = {
            "image_id": number,
            "category_id": category_of(label, category_ids),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0 if sample.crowd is None else int(sample.crowd[i]),
        }
        if lengths is not None:
            # as in COCO's files: an object is as large as its mask, for its box too
            entry |= {"area": float(mask_tools().area(lengths[i])), "segmentation": lengths[i]}
        if sample.areas is not None:
            entry["area"] = float(sample.areas[i])
        truth.append(entry)
    return truth


def _object_masks(sample):
    """Return the run-lengths of the masks of a sample's objects, or None where it has none."""
    if isinstance(sample.masks, RunLengthMasks):
        return list(sample.masks.runs)
    if sample.masks is not None:
        return [run_lengths(mask) for mask in sample.masks]
    if sample.instances is None or sample.classes is None:
        return None
    # one at a time: all masks of hundreds of objects in a large picture would take much memory
    return [run_lengths(sample.instances == number) for number in range(1, len(sample.classes) + 1)]


def _have_masks(entries):
    """Return whether detections or objects have masks; None where there are none of them."""
    return "segmentation" in entries[0] if entries else None


def _agree(what, before, now, sample):
    """Return whether pictures come with masks, None where that is not known yet."""
    if before is None or now is None:
        return before if now is None else now
    if before != now:
        raise ValueError(
            f"{what} before {sample.name!r} came {'with' if before else 'without'} masks; expected the same"
        )
    return now


def _fill_areas(annotations, kind):
    """Give each detection the size by which ``APs``, ``APm`` and ``APl`` leave it out: its box's, or its mask's."""
    for entry in annotations:
        if kind == "mask":
            entry["area"] = float(mask_tools().area(entry["segmentation"]))
        else:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]


def _scores(precision, recall):
    """Return the means of what is there, None over nothing; pycocotools marks what is not with -1."""
    parts = {
        "AP": precision[..., 0],
        "AP50": precision[0, ..., 0],
        "AP75": precision[5, ..., 0],
        "APs": precision[..., 1],
        "APm": precision[..., 2],
        "APl": precision[..., 3],
        "AR": recall[..., 0],
    }
    kept = {name: values[values > -1] for name, values in parts.items()}
    return {name: float(values.mean()) if values.size else None for name, values in kept.items()}
