"""``tinyseg demo``: train a small U-Net on made-up pictures, and write a page that shows what came out."""

import sys
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, whole_number

_DESCRIPTION = """\
Train a small U-Net on made-up microscope pictures of cells, in a minute or two, and let it find
the cells in pictures it has never seen. Needs no files, no graphics card and no network.

The folder --out receives
  demo.html             what came out, explained; one file that can be sent and opened anywhere
  pictures/             the same pictures as PNG files
  weights.safetensors   what the network has learned, for 'tinyseg predict'
The very first run also compiles the kernels, which takes about half a minute more."""

_EXAMPLE = """\
  tinyseg demo
  tinyseg predict --weights demo/weights.safetensors demo/pictures/1_picture.png"""

PAGE = "demo.html"


def add_parser(commands):
    """Add ``demo`` to the commands."""
    parser = add_command(
        commands, "demo", run, "train on built-in pictures and show what comes out: start here", _DESCRIPTION, _EXAMPLE
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder to write to (default: demo)")
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        default=160,
        metavar="N",
        help="training steps; fewer are quicker (default: 160)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of all chance (default: 0)")
    add_common(parser)


def run(args):
    """Train, predict, write the page; return the exit code."""
    from tinyseg import files
    from tinyseg.training import Interrupted, save_model

    folder = _prepare(Path(args.out))
    print("making pictures of cells")
    train, val, test = _pictures(args.seed)
    print(f"training a U-Net on {len(train)} of them; its scores are on {len(val)} others")
    try:
        model, history, settings = _train(train, val, args)
    except Interrupted:
        print("tinyseg: stopped; nothing was written", file=sys.stderr)
        return 130
    print(f"looking at {len(test)} pictures it has never seen")
    from tinyseg.cli.demo_page import page

    shown, summary = _look(model, test)
    for number, item in enumerate(shown, 1):
        for kind, drawing in item["drawings"].items():
            files.write_bytes(folder / "pictures" / f"{number}_{kind}.png", drawing)
    save_model(folder / "weights.safetensors", model, {"step": history.step, "scores": summary["mean"]})
    files.write_text(folder / PAGE, page(shown, summary, history, settings))
    mean = summary["mean"]
    print(f"Dice {mean['dice']:.3f}, IoU {mean['iou']:.3f}, pixel error {mean['pixel_error']:.3f} on these")
    print(f"open this page in a browser: {(folder / PAGE).resolve()}")
    return 0


def _prepare(folder):
    """Make the folder, or take that of an earlier demo; leave other people's folders alone."""
    from tinyseg import files

    if folder.is_dir() and any(folder.iterdir()) and not (folder / PAGE).exists():
        raise FileExistsError(f"{folder} holds other files; choose another folder with --out")
    files.make_folder(folder)
    files.make_folder(folder / "pictures")
    return folder


def _pictures(seed):
    """Return pictures to train on, to watch the scores on, and to show: none of them twice."""
    from tinyseg.data import SyntheticCells

    pictures = SyntheticCells(48, 192, seed, noise=0.12)
    made = [pictures[i] for i in range(len(pictures))]
    return made[:36], made[36:42], made[42:]


def _train(train, val, args):
    """Return the trained model, its history, and the settings in words."""
    from tinyseg import manual_seed
    from tinyseg.models import UNet
    from tinyseg.training import fit

    manual_seed(args.seed)
    model = UNet(1, 1, (8, 16, 32, 64))
    settings = {"batch_size": 8, "crop": 128, "learning_rate": 5e-3, "steps_per_epoch": max(1, args.steps // 8)}
    history = fit(model, train, val, steps=args.steps, seed=args.seed, **settings)
    parameters = sum(parameter.size for parameter in model.parameters())
    about = {
        "parameters": parameters,
        "pictures": len(train),
        "picture_size": train[0].picture.shape[1],
        **settings,
    }
    return model, history, about


def _look(model, samples):
    """Return each picture with its drawings and scores, the best first, and the summary of the scores."""
    from tinyseg import draw
    from tinyseg.evaluation import SegmentationScores, predict, to_mask

    scores, shown = SegmentationScores(), []
    for sample in samples:
        probability = predict(model, sample.picture)
        mask = to_mask(probability)
        entry = scores.update(mask, sample.mask, sample.name)
        drawings = {
            "picture": sample.picture,
            "truth": draw.overlay(sample.picture, sample.mask),
            "probability": draw.probability_map(probability),
            "mask": draw.overlay(sample.picture, mask),
            "errors": draw.errors(sample.picture, sample.mask, mask),
        }
        shown.append({"scores": entry, "drawings": {kind: _png(drawing) for kind, drawing in drawings.items()}})
    shown.sort(key=lambda item: -item["scores"]["dice"])
    return shown, scores.summary()


def _png(drawing):
    """Return a drawing as the bytes of a PNG file."""
    import io

    from PIL import Image

    from tinyseg import draw

    buffer = io.BytesIO()
    Image.fromarray(draw.to_rgb(drawing)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
