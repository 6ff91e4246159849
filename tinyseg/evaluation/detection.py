"""The score of a detector, or of a file of detections, on pictures with truth."""

from tinyseg.data.choose import some
from tinyseg.data.normalise import normalise
from tinyseg.evaluation.coco import CocoScores
from tinyseg.evaluation.prediction import evaluating
from tinyseg.tensor import no_grad


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
            (detections,) = model([normalise(sample.picture, normalisation)])
            scores.update(detections, sample)
            bar.update()
    return scores


def evaluate_results(entries, dataset, *, max_detections=300, others=False, progress=False):
    """Score detections from a results file on pictures with truth.

    Parameters
    ----------
    entries : list of dict
        From `read_results`. A data set without image ids of its own numbers its pictures from 1.
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
    by_picture: dict = {}
    for entry in entries:
        by_picture.setdefault(entry["image_id"], []).append(entry)
    scores = _empty_scores(dataset, max_detections)
    with _bar(len(dataset), progress) as bar:
        for index in range(len(dataset)):
            sample = dataset[index]
            scores.update_results(by_picture.pop(scores.image_id(sample), []), sample)
            bar.update()
    if by_picture and not others:
        raise ValueError(
            f"there are detections of {len(by_picture)} pictures that the data set does not have: "
            f"image_id {some(map(str, by_picture))}"
        )
    return scores


def _empty_scores(dataset, max_detections, threshold=0.5):
    """Return scores without pictures, with the names and ids of a data set's classes."""
    names, ids = (getattr(dataset, name, ()) for name in ("class_names", "category_ids"))
    return CocoScores(names, max_detections, ids, threshold)


def _bar(total, show):
    """Return a progress bar for pictures."""
    from tqdm import tqdm

    return tqdm(total=total, unit="picture", desc="evaluating", leave=False, disable=None if show else True)
