"""``tinyseg evaluate``: how well a trained network does on pictures with masks."""

import csv
import io
import json
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, number, tile, whole_number

_DESCRIPTION = """\
Compare what a trained network finds with the truth of a folder of pictures, each at full size.

With a U-Net
  Dice         2 x overlap / (found + true), 1 is perfect
  IoU          overlap / (found or true), 1 is perfect
  pixel error  share of pixels whose class is wrong, 0 is perfect
The mean counts every picture alike, 'pooled' every pixel alike. With several classes, scores
are means over the classes, background included. Where nothing is to be found and nothing was
found, Dice and IoU are 1.

With a Mask R-CNN or Faster R-CNN, or a file of detections (--results)
  AP           COCO's average precision of boxes and of masks, 1 is perfect: the mean over the
               overlaps (IoU) 0.50, 0.55, ..., 0.95 from which an object counts as found
  AP50, AP75   at an overlap of 0.50 or 0.75
  small, ...   AP of objects below 32 x 32 pixels, up to 96 x 96, and above
  AR           the share of objects found, averaged as AP is
The data is a folder with label pictures, or a JSON file in COCO's format with --pictures, as for
training. Detections are saved too, as detections.json in COCO's results format. Needs
pycocotools: pip install 'tinyseg[coco]'.

The table is printed, and saved as scores.json and scores.csv."""

_EXAMPLE = """\
  tinyseg evaluate --weights runs/cells/best.safetensors --data cells --val 16-19
  tinyseg evaluate --weights runs/nuclei/best.safetensors --data nuclei
  tinyseg evaluate --results detections.json --data val.json --pictures photos"""


def add_parser(commands):
    """Add ``evaluate`` to the commands."""
    parser = add_command(
        commands, "evaluate", run, "score a trained network on pictures with truth", _DESCRIPTION, _EXAMPLE
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", metavar="FILE", help="best.safetensors of a training run")
    what.add_argument("--results", metavar="FILE", help="detections in COCO's results format, instead of a network")
    parser.add_argument(
        "--data", metavar="DIR|JSON", help="folder that holds the folders of pictures and masks, or a COCO json file"
    )
    parser.add_argument(
        "--pictures", metavar="DIR", help="folder of pictures, in --data or by itself (default: found by name)"
    )
    parser.add_argument(
        "--masks",
        "--labels",
        metavar="DIR",
        help="folder of masks or label pictures, in --data or by itself (default: found by name)",
    )
    parser.add_argument("--val", metavar="NAMES", help="only these pictures: names, globs, ranges such as 16-19")
    parser.add_argument("--out", default="scores", metavar="DIR", help="folder for the scores (default: scores)")
    parser.add_argument(
        "--threshold",
        type=number(0, 1),
        metavar="X",
        help="probability from which a pixel counts (default: as the weights say)",
    )
    parser.add_argument(
        "--tile", type=tile, metavar="PIXELS", help="with a U-Net: side of the pieces of large pictures (default: auto)"
    )
    parser.add_argument(
        "--max-objects",
        type=whole_number(1),
        metavar="N",
        help="with a detector or detections: how many of a picture and class count, the surest (default: 300, or "
        "fewer if the network is set so)",
    )
    add_common(parser)


def run(args):
    """Score; return the exit code."""
    from tinyseg.cli import evaluate_objects
    from tinyseg.training import load_model

    if args.results is not None:
        return evaluate_objects.run_results(args)
    model, info = load_model(args.weights)
    if info["kind"] != "unet":
        return evaluate_objects.run_detector(args, model, info)
    if args.max_objects is not None:
        raise ValueError("--max-objects is for detectors; these weights are a U-Net's")
    return _run_unet(args, model, info)


def _run_unet(args, model, info):
    """Score a U-Net; return the exit code."""
    from tinyseg import files
    from tinyseg.cli.data_folders import open_folder
    from tinyseg.data import Subset, select
    from tinyseg.evaluation import evaluate

    dataset, places = open_folder(
        args.data, args.pictures, args.masks, num_classes=model.out_channels, channels=_channels(model)
    )
    chosen = range(len(dataset)) if args.val is None else select(dataset.names, args.val)
    samples = Subset(dataset, chosen)
    folder = files.make_folder(args.out)
    threshold = info["threshold"] if args.threshold is None else args.threshold
    side = "auto" if args.tile is None else args.tile
    scores = evaluate(model, samples, threshold=threshold, tile=side, normalisation=info["normalisation"])
    summary = scores.summary()
    print(table(summary))
    mention_training_pictures(samples.names, info)
    about = {"weights": str(Path(args.weights).resolve()), "threshold": threshold, **places}
    save(folder, {**about, **summary}, csv_text(summary))
    return 0


def save(folder, scores, text):
    """Write ``scores.json`` and, with a text that is ready, ``scores.csv``; say so."""
    from tinyseg import files

    files.write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
    files.write_text(folder / "scores.csv", text)
    print(f"saved in {folder / 'scores.json'} and {folder / 'scores.csv'}")


def _channels(model):
    """Return the channels to turn pictures into, or None where only the same number will do."""
    return model.in_channels if model.in_channels in (1, 3) else None


def mention_training_pictures(names, info):
    """Say so if the network has seen pictures of these names in training."""
    seen = [name for name in names if name in set(info.get("trained_on", ()))]
    if seen:
        print(f"note: the network was trained on pictures of {len(seen)} of these names ({seen[0]}, ...)")


def _rows(summary):
    """Return (name, dice, iou, pixel error) per picture, then per class where there are several, the mean, the pool."""
    rows = [(entry["name"], entry["dice"], entry["iou"], entry["pixel_error"]) for entry in summary["pictures"]]
    pooled = summary["pooled"]
    for k, (dice, iou) in enumerate(
        zip(pooled.get("dice_per_class", ()), pooled.get("iou_per_class", ()), strict=True)
    ):
        rows.append((f"class {k}, pooled", dice, iou, None))
    for title in ("mean", "pooled"):
        rows.append((title, *(summary[title][score] for score in ("dice", "iou", "pixel_error"))))
    return rows


def table(summary):
    """Return scores as a table to print.

    Parameters
    ----------
    summary : dict
        From `tinyseg.evaluation.SegmentationScores.summary`.

    Returns
    -------
    str
    """
    rows = _rows(summary)
    width = max(len("picture"), *(len(row[0]) for row in rows))
    lines = [f"{'picture':<{width}}    Dice     IoU  pixel error"]
    for name, dice, iou, error in rows:
        if name == "mean":
            lines.append("-" * len(lines[0]))
        lines.append(f"{name:<{width}}  {dice:6.4f}  {iou:6.4f}  {'' if error is None else f'{error:11.4f}'}".rstrip())
    return "\n".join(lines)


def csv_text(summary):
    """Return scores as the text of a CSV file with the columns picture, dice, iou and pixel_error."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["picture", "dice", "iou", "pixel_error"])
    writer.writerows([["" if cell is None else cell for cell in row] for row in _rows(summary)])
    return buffer.getvalue()
