"""Detections in COCO's results format: a JSON list with an entry per detection.

An entry is ``{"image_id": 7, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9, "segmentation": {"size":
[H, W], "counts": "..."}}``: the box in picture pixels with the corner (0, 0) at the upper left of the first pixel, the
mask as COCO's compressed run-lengths (https://cocodataset.org/#format-results). Detections without masks have no
``segmentation``.
"""

import json
import math
import os
from pathlib import Path

import numpy as np

from tinyseg import files
from tinyseg.data.run_lengths import check_runs, mask_tools, uncompress


def run_lengths(mask):
    """Encode a mask as COCO's compressed run-lengths.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        The pixels of an object.

    Returns
    -------
    dict
        ``size`` [H, W] and ``counts``, a str, so that it can be stored as JSON.
    """
    encoded = mask_tools().encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": encoded["counts"].decode("ascii")}


def category_of(label, category_ids):
    """Return the category id of a class.

    Parameters
    ----------
    label : int
        Number of the class, from 1.
    category_ids : sequence of int
        Ids of class 1, 2, ...; where there are none, the number itself.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If there is no such class.
    """
    label = int(label)
    if label < 1 or (len(category_ids) and label > len(category_ids)):
        raise ValueError(f"an object has class {label}; expected 1 to {len(category_ids) or 'the number of classes'}")
    return int(category_ids[label - 1]) if len(category_ids) else label


def to_results(prediction, image_id, category_ids=(), threshold=0.5):
    """Write the detections of one picture as entries of COCO's results format.

    Parameters
    ----------
    prediction : dict of ndarray or Tensor
        ``boxes`` (K, 4) as ``(x1, y1, x2, y2)`` in picture pixels, ``labels`` (K,) from 1, ``scores`` (K,), and with
        masks ``masks`` (K, H, W) or (K, 1, H, W): bool, or probabilities.
    image_id : int
        The picture's number in its data set.
    category_ids : sequence of int
        Category ids of class 1, 2, ...; by default the class's number.
    threshold : float
        Probability from which a pixel belongs to a mask.

    Returns
    -------
    list of dict
        In the order of the detections, as plain numbers, lists and str.

    Raises
    ------
    TypeError, ValueError
        If an array is missing, has another type or shape, or holds a number that is not finite or a reversed box.
    """
    arrays = {name: _array(prediction, name) for name in ("boxes", "labels", "scores")}
    boxes, labels, scores = arrays["boxes"], arrays["labels"], arrays["scores"]
    count = len(scores)
    for name, shape in (("boxes", (count, 4)), ("labels", (count,)), ("scores", (count,))):
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape} as there are {count} scores")
    for name in ("boxes", "scores"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds a number that is not finite")
    if labels.size and labels.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {labels.dtype}; expected whole numbers")
    masks = _masks(prediction, count)
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    if (x2 < x1).any() or (y2 < y1).any():
        row = int(np.argmax((x2 < x1) | (y2 < y1)))
        raise ValueError(f"boxes has {boxes[row].tolist()} in row {row}; expected x1 <= x2 and y1 <= y2")
    corners = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    entries = []
    for i in range(count):
        entry = {
            "image_id": int(image_id),
            "category_id": category_of(labels[i], category_ids),
            "bbox": corners[i],
            "score": float(scores[i]),
        }
        if masks is not None:
            # one at a time: the masks of a large picture, all turned to bytes at once, would take much memory
            pixels = masks[i] >= masks.dtype.type(threshold) if masks.dtype.kind == "f" else masks[i] != 0
            entry["segmentation"] = run_lengths(pixels)
        entries.append(entry)
    return entries


def _array(prediction, name):
    """Return an entry of a prediction as an array."""
    if name not in prediction:
        raise ValueError(f"the prediction has no {name!r}; it has {', '.join(map(repr, prediction)) or 'nothing'}")
    value = prediction[name]
    return np.asarray(value.to("cpu").numpy() if hasattr(value, "numpy") else value)


def _masks(prediction, count):
    """Return the masks of a prediction as (K, H, W), or None where it has none."""
    if prediction.get("masks") is None:
        return None
    masks = _array(prediction, "masks")
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 3 or len(masks) != count:
        raise ValueError(f"masks has shape {masks.shape}; expected ({count}, H, W) or ({count}, 1, H, W)")
    return masks


def write_results(path, entries):
    """Write detections as COCO's results JSON.

    Parameters
    ----------
    path : str or path-like
        The file. An older one stays until the new one is complete.
    entries : iterable of dict
        From `to_results`, of all pictures.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    files.write_text(path, f"[{lines}]\n")


def read_results(path):
    """Read detections from COCO's results JSON.

    Masks may be compressed or plain run-lengths; boxes that are missing are drawn around the masks.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    list of dict
        As `to_results` gives them, and with ``file_name`` where the file has it; anything else is left out.

    Raises
    ------
    ValueError
        If it is no such file; one sentence that names the first entry that is wrong.
    OSError
        If it cannot be read.
    """
    name = os.fspath(path)
    try:
        entries = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list):
        hint = "; this is the truth of a data set" if isinstance(entries, dict) and "annotations" in entries else ""
        raise ValueError(f"{name} is no list of detections, as COCO's results format has it{hint}")
    checked = []
    for number, entry in enumerate(entries):
        try:
            checked.append(_checked(entry))
        except ValueError as error:
            raise ValueError(f"{name}: detection {number} {error}") from None
    if len({"segmentation" in entry for entry in checked}) > 1:
        number = next(i for i, entry in enumerate(checked) if "segmentation" not in entry)
        raise ValueError(f"{name}: detection {number} has no 'segmentation', but others do")
    return checked


def _checked(entry):
    """Return one entry of a file with what is needed, or raise a ValueError that goes on from "detection 3"."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {_short(entry)}; expected an object with 'image_id', 'category_id', 'bbox' and 'score'")
    segmentation = entry.get("segmentation")
    wanted = ["image_id", "category_id", "score", *(["bbox"] if segmentation is None else ())]
    missing = [key for key in wanted if key not in entry]
    if missing:
        raise ValueError(f"has no {missing[0]!r}")
    for key in ("image_id", "category_id"):
        if type(entry[key]) is not int:
            raise ValueError(f"has {key} {_short(entry[key])}; expected a whole number")
    if not _finite(entry["score"]):
        raise ValueError(f"has score {_short(entry['score'])}; expected a number")
    kept = {key: entry[key] for key in ("image_id", "category_id")}
    box = entry.get("bbox")
    if segmentation is not None:
        segmentation = _checked_run_lengths(segmentation)
    if box is None:
        box = mask_tools().toBbox(segmentation).tolist()
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(value) for value in box) or min(box[2:]) < 0:
        raise ValueError(f"has bbox {_short(box)}; expected [x, y, width, height]")
    kept |= {"bbox": [float(value) for value in box], "score": float(entry["score"])}
    if isinstance(entry.get("file_name"), str):
        kept["file_name"] = entry["file_name"]
    return kept if segmentation is None else {**kept, "segmentation": segmentation}


def _checked_run_lengths(segmentation):
    """Return the run-lengths of one entry, compressed, and the pixels they count proved to be those of their size."""
    parts = segmentation if isinstance(segmentation, dict) else {}
    size, counts = parts.get("size", ()), parts.get("counts")
    fits = isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**16 for side in size)
    if not fits or not isinstance(counts, (str, list)):
        raise ValueError(
            f"has segmentation {_short(segmentation)}; expected run-lengths, {{'size': [H, W], 'counts': ...}}"
        )
    try:
        check_runs(uncompress(counts) if isinstance(counts, str) else counts, *size)
    except ValueError as error:
        raise ValueError(f"has run-lengths whose counts {error}") from None
    if isinstance(counts, list):
        counts = mask_tools().frPyObjects({"size": size, "counts": counts}, *size)["counts"].decode("ascii")
    return {"size": size, "counts": counts}


def _finite(value):
    """Return whether a value out of JSON is a number, and neither infinite nor NaN."""
    return type(value) in (int, float) and math.isfinite(value)


def _short(value):
    """Return a value of a file for a message, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
