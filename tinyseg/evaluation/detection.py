"""The score of a detector, or of a file of detections, on pictures with truth."""

from pathlib import Path

import numpy as np

from tinyseg import ops
from tinyseg.data.choose import some
from tinyseg.data.normalise import normalise
from tinyseg.evaluation.coco import CocoScores
from tinyseg.evaluation.prediction import evaluating
from tinyseg.tensor import no_grad

_PASTED_AT_ONCE = 16


def evaluate_detector(
    model, dataset, *, normalisation=None, max_detections=300, threshold=0.5, progress=False, before_picture=None
):
    """Score a detector on pictures with truth, one at a time.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or tinyseg.models.MaskRCNN
        It is used in evaluation mode, and left in the mode it was in.
    dataset : data set of tinyseg.data.Sample
        Pictures (C, H, W) with objects; each is read once.
    normalisation : dict, str or None
        What the model was trained with; see `tinyseg.data.normalise`. None changes nothing.
    max_detections, threshold
        As for `CocoScores`.
    progress : bool
        Whether to show a bar on stderr.
    before_picture : callable, optional
        Called before each picture with the number of pictures done and of all; may raise an exception to give up.

    Returns
    -------
    CocoScores

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    TypeError, ValueError
        If a picture has no truth of objects, or does not suit the model.
    """
    scores = _empty_scores(dataset, max_detections, threshold)
    with evaluating(model), no_grad(), _bar(len(dataset), progress) as bar:
        for done in range(len(dataset)):
            if before_picture is not None:
                before_picture(done, len(dataset))
            sample = dataset[done]
            found = _detections(model, normalise(sample.picture, normalisation), threshold)
            scores.update(found, sample)
            bar.update()
    return scores


def _detections(model, picture, threshold):
    """Return what is in one picture, masks as bools; all their probabilities at once would take four times that."""
    if not hasattr(model, "detect"):  # any other model of torchvision's call form
        return model([picture])[0]
    found = {name: tensor.to("cpu").numpy() for name, tensor in model.detect([picture])[0].items()}
    if "masks" in found:
        size, small, boxes = picture.shape[1:], found["masks"], found["boxes"]
        found["masks"] = np.empty((len(small), *size), bool)
        for start in range(0, len(small), _PASTED_AT_ONCE):
            part = slice(start, start + _PASTED_AT_ONCE)
            pasted = ops.paste_masks(small[part].copy(), boxes[part].copy(), size)
            found["masks"][part] = pasted[:, 0] >= pasted.dtype.type(threshold)
    return found


def evaluate_results(entries, dataset, *, max_detections=300, others=False, progress=False):
    """Score detections from a results file on pictures with truth.

    Parameters
    ----------
    entries : list of dict
        From `read_results`. Where all have a ``file_name``, as `tinyseg predict` writes it, pictures are found by that;
        else by their ``image_id``, and a data set that has no such numbers counts from 1.
    dataset : data set of tinyseg.data.Sample
        Pictures (C, H, W) with objects; each is read once.
    max_detections : int
        As for `CocoScores`.
    others : bool
        Whether to pass over detections of pictures that the data set does not have, where it is a part of one.
    progress : bool
        Whether to show a bar on stderr.

    Returns
    -------
    CocoScores

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    ValueError
        If detections are of a picture that the data set does not have, or of another size.
    """
    key = _key_of_pictures(entries)
    by_picture: dict = {}
    for entry in entries:
        by_picture.setdefault(key(entry), []).append(entry)
    scores = _empty_scores(dataset, max_detections)
    with _bar(len(dataset), progress) as bar:
        for index in range(len(dataset)):
            sample = dataset[index]
            number = scores.image_id(sample)
            found = by_picture.pop(sample.name, None) or by_picture.pop(number, [])
            scores.update_results([_renumbered(entry, number) for entry in found], sample)
            bar.update()
    if by_picture and not others:
        raise ValueError(
            f"there are detections of {len(by_picture)} pictures that the data set does not have: "
            f"{some(str(picture) for picture in by_picture)} (file_name or image_id)"
        )
    return scores


def _key_of_pictures(entries):
    """Return a function from an entry to its picture: the file's name where that tells pictures apart, else the id."""
    files = {entry["image_id"]: entry.get("file_name") for entry in entries}
    names = [None if name is None else Path(name).stem for name in files.values()]
    if None in names or len(set(names)) < len(names):
        return lambda entry: entry["image_id"]
    return lambda entry: Path(entry["file_name"]).stem


def _renumbered(entry, number):
    """Return an entry as the data set counts its pictures."""
    return {**{key: value for key, value in entry.items() if key != "file_name"}, "image_id": number}


def _empty_scores(dataset, max_detections, threshold=0.5):
    """Return scores without pictures, with the names and ids of a data set's classes."""
    names, ids = (getattr(dataset, name, ()) for name in ("class_names", "category_ids"))
    return CocoScores(names, max_detections, ids, threshold)


def _bar(total, show):
    """Return a progress bar for pictures."""
    from tqdm import tqdm

    return tqdm(total=total, unit="picture", desc="evaluating", leave=False, disable=None if show else True)
