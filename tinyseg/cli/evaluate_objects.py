"""``tinyseg evaluate`` with a detector, or with a file of detections: COCO's average precision."""

import csv
import io
from dataclasses import replace
from pathlib import Path

DETECTIONS = "detections.json"

#: Scores of `tinyseg.evaluation.CocoScores`, and what their columns are called.
_COLUMNS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "small",
    "APm": "medium",
    "APl": "large",
    "AR": "AR",
}


def run_detector(args, model, info):
    """Score a detector; return the exit code."""
    from tinyseg.cli.evaluate import mention_training_pictures
    from tinyseg.evaluation import evaluate_detector

    if args.tile is not None:
        raise ValueError("--tile is for U-Nets; a detector looks at the whole picture at once")
    samples, places, _ = _open(args)
    _check_classes(samples, model, info)
    if args.max_objects is not None:
        model.roi_heads.detections_per_img = args.max_objects
    threshold = info["threshold"] if args.threshold is None else args.threshold
    folder = _folder(args)
    scores = evaluate_detector(
        model,
        samples,
        normalisation=info["normalisation"],
        max_detections=args.max_objects or 300,
        threshold=threshold,
        progress=True,
    )
    print(table(scores.summary()))
    mention_training_pictures(samples.names, info)
    scores.write_results(folder / DETECTIONS)
    about = {"weights": str(Path(args.weights).resolve()), "threshold": threshold}
    _save(folder, {**about, **places}, scores.summary())
    print(f"the detections are in {folder / DETECTIONS}")
    return 0


def run_results(args):
    """Score detections from a file; return the exit code."""
    from tinyseg.evaluation import evaluate_results, read_results

    for option, value in (("--tile", args.tile), ("--threshold", args.threshold)):
        if value is not None:
            raise ValueError(f"{option} goes with --weights; the detections of --results are ready")
    entries = read_results(args.results)
    samples, places, whole = _open(args)
    folder = _folder(args)
    scores = evaluate_results(entries, samples, max_detections=args.max_objects or 300, others=not whole, progress=True)
    summary = scores.summary()
    print(table(summary))
    known = set(samples.category_ids) or set(range(1, len(samples.class_names)))
    unknown = sorted({entry["category_id"] for entry in entries} - known)
    if unknown:
        print(f"note: the data have no category {', '.join(map(str, unknown))}; detections of it do not count")
    _save(folder, {"results": str(Path(args.results).resolve()), **places}, summary)
    return 0


def _open(args):
    """Return the pictures with objects, where they are, and whether these are all of the data."""
    from tinyseg.cli.data_folders import open_objects
    from tinyseg.data import select

    dataset, places = open_objects(args.data, args.pictures, args.masks)
    chosen = range(len(dataset)) if args.val is None else select(dataset.names, args.val)
    return _Numbered(dataset, chosen), places, args.val is None


class _Numbered:
    """Some items of a data set, each with the number it has in the whole where the data give none.

    A file of detections then fits whatever part of the data is scored.
    """

    def __init__(self, dataset, indices):
        from tinyseg.data import Subset

        self._part = Subset(dataset, indices)
        self.names, self.class_names = self._part.names, self._part.class_names
        self.category_ids = self._part.category_ids

    def __len__(self):
        return len(self._part)

    def __getitem__(self, i):
        sample = self._part[i]
        return sample if sample.image_id is not None else replace(sample, image_id=self._part.indices[i] + 1)


def _folder(args):
    """Make the folder for the scores, and make sure first that they can be computed."""
    from tinyseg import files
    from tinyseg.evaluation.coco_results import mask_tools

    mask_tools()
    return files.make_folder(args.out)


def _check_classes(samples, model, info):
    """Raise a ValueError where the network's classes are not the data's."""
    ours, theirs = model.num_classes - 1, len(samples.class_names) - 1
    if theirs >= 0 and ours != theirs:
        raise ValueError(f"the network tells {ours} classes of objects apart; the data have {theirs}")
    numbers, ids = tuple(info.get("category_ids", ())), tuple(samples.category_ids)
    if numbers and ids and numbers != ids:
        k = next(i for i, pair in enumerate(zip(numbers, ids, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"the network's class {k + 1} is category {numbers[k]}, that of the data is {ids[k]}; expected the same"
        )


def _save(folder, about, summary):
    """Write ``scores.json`` and ``scores.csv``."""
    from tinyseg.cli.evaluate import save

    save(folder, {**about, **summary}, csv_text(summary))


def _rows(summary):
    """Return (class, objects, "box" or "mask", scores): of all classes, then of each that has objects."""
    kinds = [kind for kind in ("box", "mask") if kind in summary]
    rows = [("all", summary["objects"], kind, summary[kind]) for kind in kinds]
    present = {name: entry for name, entry in summary["per_class"].items() if entry["objects"]}
    if len(present) > 1:
        rows += [(name, entry["objects"], kind, entry[kind]) for name, entry in present.items() for kind in kinds]
    return rows


def table(summary):
    """Return average precision as a table to print.

    Parameters
    ----------
    summary : dict
        From `tinyseg.evaluation.CocoScores.summary`.

    Returns
    -------
    str
    """
    rows = _rows(summary)
    width = max(len("class"), *(len(name) for name, *_ in rows))
    lines = [
        f"{summary['pictures']} pictures, {summary['objects']} objects, {summary['detections']} detections "
        f"(up to {summary['max_detections']} of a picture and class count)",
        f"{'class':<{width}}  objects        " + "".join(f"{title:>8}" for title in _COLUMNS.values()),
    ]
    for name, objects, kind, scores in rows:
        cells = "".join(f"{'-' if scores[key] is None else format(scores[key], '.4f'):>8}" for key in _COLUMNS)
        lines.append(f"{name:<{width}}  {objects:>7}  {kind:<6}{cells}")
    if not summary["objects"]:
        lines.append("no objects in these pictures: there is nothing to score")
    return "\n".join(lines)


def csv_text(summary):
    """Return scores as the text of a CSV file, a line per class and kind; cells without a score are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["class", "objects", "kind", *_COLUMNS])
    for name, objects, kind, scores in _rows(summary):
        writer.writerow([name, objects, kind, *("" if scores[key] is None else scores[key] for key in _COLUMNS)])
    return buffer.getvalue()
