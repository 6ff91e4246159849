"""``tinyseg evaluate``: how well a trained network does on pictures with masks."""

import csv
import io
import json
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, number, tile

_DESCRIPTION = """\
Compare what a trained network finds with the masks of a folder of pictures, each at full size.

  Dice         2 x overlap / (found + true), 1 is perfect
  IoU          overlap / (found or true), 1 is perfect
  pixel error  share of pixels whose class is wrong, 0 is perfect
The mean counts every picture alike, 'pooled' every pixel alike. With several classes, scores
are means over the classes, background included. Where nothing is to be found and nothing was
found, Dice and IoU are 1. The table is printed, and saved as scores.json and scores.csv."""

_EXAMPLE = "  tinyseg evaluate --weights runs/cells/best.safetensors --data cells --val 16-19"


def add_parser(commands):
    """Add ``evaluate`` to the commands."""
    parser = add_command(
        commands, "evaluate", run, "score a trained network on pictures with masks", _DESCRIPTION, _EXAMPLE
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="best.safetensors of a training run")
    parser.add_argument("--data", metavar="DIR", help="folder that holds the folders of pictures and masks")
    parser.add_argument(
        "--pictures", metavar="DIR", help="folder of pictures, in --data or by itself (default: found by name)"
    )
    parser.add_argument(
        "--masks", metavar="DIR", help="folder of masks, in --data or by itself (default: found by name)"
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
        "--tile",
        type=tile,
        default="auto",
        metavar="PIXELS",
        help="side of the pieces of large pictures (default: auto)",
    )
    add_common(parser)


def run(args):
    """Score; return the exit code."""
    from tinyseg import files
    from tinyseg.cli.data_folders import open_folder
    from tinyseg.data import Subset, select
    from tinyseg.evaluation import evaluate
    from tinyseg.training import load_model

    model, info = load_model(args.weights)
    dataset, places = open_folder(
        args.data, args.pictures, args.masks, num_classes=model.out_channels, channels=_channels(model)
    )
    chosen = range(len(dataset)) if args.val is None else select(dataset.names, args.val)
    samples = Subset(dataset, chosen)
    folder = files.make_folder(args.out)
    threshold = info["threshold"] if args.threshold is None else args.threshold
    scores = evaluate(model, samples, threshold=threshold, tile=args.tile, normalisation=info["normalisation"])
    summary = scores.summary()
    print(table(summary))
    _mention_training_pictures(samples.names, info)
    about = {"weights": str(Path(args.weights).resolve()), "threshold": threshold, **places}
    files.write_text(folder / "scores.json", json.dumps({**about, **summary}, indent=2) + "\n")
    files.write_text(folder / "scores.csv", csv_text(summary))
    print(f"saved in {folder / 'scores.json'} and {folder / 'scores.csv'}")
    return 0


def _channels(model):
    """Return the channels to turn pictures into, or None where only the same number will do."""
    return model.in_channels if model.in_channels in (1, 3) else None


def _mention_training_pictures(names, info):
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
