"""``tinyseg demo``: train two small networks on made-up pictures, and write a page that shows what came out."""

import sys
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, whole_number

_DESCRIPTION = """\
Train two small networks on made-up pictures, in a few minutes, and let them look at pictures that
they have never seen: a U-Net, which says for every pixel whether it belongs to a cell, and a
Mask R-CNN, which finds each object with its class, its box and its mask. The page also shows how
RoIPool and RoIAlign, two ways to cut an object out of a feature map, differ. Needs no files, no
graphics card and no network.

The folder --out receives
  demo.html              what came out, explained; one file that can be sent and opened anywhere
  pictures/              the same pictures as PNG files
  unet.safetensors       what the networks have learned, for 'tinyseg predict'
  maskrcnn.safetensors
The very first run also compiles the kernels, which takes about a minute more."""

_EXAMPLE = """\
  tinyseg demo
  tinyseg predict --weights demo/unet.safetensors demo/pictures/cells_1_picture.png
  tinyseg predict --weights demo/maskrcnn.safetensors demo/pictures/shapes_1_picture.png"""

PAGE = "demo.html"
#: Training steps.
UNET_STEPS, MASK_RCNN_STEPS = 120, 1500


def add_parser(commands):
    """Add ``demo`` to the commands."""
    parser = add_command(
        commands, "demo", run, "train on built-in pictures and show what comes out: start here", _DESCRIPTION, _EXAMPLE
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder to write to (default: demo)")
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        metavar="N",
        help=f"training steps of each network; fewer are quicker (default: {UNET_STEPS} for the U-Net, "
        f"{MASK_RCNN_STEPS} for the Mask R-CNN)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of all chance (default: 0)")
    add_common(parser)


def run(args):
    """Train, predict, write the page; return the exit code."""
    from tinyseg import files
    from tinyseg.cli.demo_page import page
    from tinyseg.training import Interrupted

    folder = _prepare(Path(args.out))
    try:
        cells = _cells(args, folder)
        shapes = _shapes(args, folder)
    except Interrupted:
        print("tinyseg: stopped before the page was written", file=sys.stderr)
        return 130
    print("3 of 3: RoIPool and RoIAlign")
    rois = _rois(folder)
    files.write_text(folder / PAGE, page(cells, shapes, rois))
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


def _cells(args, folder):
    """Train the U-Net; return what the page shows of it."""
    from tinyseg.cli import demo_cells
    from tinyseg.training import save_model

    print("1 of 3: a U-Net learns which pixels belong to cells")
    model, history, settings, samples = demo_cells.train(args.steps or UNET_STEPS, args.seed)
    shown, summary = demo_cells.look(model, samples)
    save_model(folder / "unet.safetensors", model, {"step": history.step, "scores": summary["mean"]})
    mean = summary["mean"]
    print(
        f"on {len(shown)} new pictures: Dice {mean['dice']:.3f}, IoU {mean['iou']:.3f}, "
        f"pixel error {mean['pixel_error']:.3f}"
    )
    return {"shown": _as_files(folder, "cells", shown), "summary": summary, "history": history, "settings": settings}


def _shapes(args, folder):
    """Train the Mask R-CNN; return what the page shows of it."""
    from tinyseg.cli import demo_shapes
    from tinyseg.training import save_model

    print("2 of 3: a Mask R-CNN learns to find objects")
    model, history, settings, samples = demo_shapes.train(args.steps or MASK_RCNN_STEPS, args.seed)
    shown, summary = demo_shapes.look(model, samples, settings["normalisation"])
    about = {
        "step": history.step,
        "normalisation": {"kind": settings["normalisation"]},
        "class_names": list(samples[0].class_names),
    }
    if summary is None:
        print("average precision is computed by pycocotools: pip install 'tinyseg[coco]'")
    else:
        about["scores"] = {kind: summary[kind]["AP50"] for kind in ("box", "mask")}
        print(
            f"on {len(samples)} new pictures: AP50 of boxes {_number(about['scores']['box'])}, "
            f"of masks {_number(about['scores']['mask'])}"
        )
    save_model(folder / "maskrcnn.safetensors", model, about)
    return {"shown": _as_files(folder, "shapes", shown), "summary": summary, "history": history, "settings": settings}


def _rois(folder):
    """Draw what the two RoI operators do; return the PNG files by name."""
    from tinyseg import files
    from tinyseg.cli import demo_rois

    drawings = {name: demo_rois.draw(f"roi_{name}") for name in ("pool", "align")}
    drawings["slide"] = demo_rois.draw_slide()
    for name, png in drawings.items():
        files.write_bytes(folder / "pictures" / f"roi_{name}.png", png)
    return drawings


def _number(score):
    """Return a score as text; one that there is not as a dash."""
    return "-" if score is None else f"{score:.3f}"


def _as_files(folder, prefix, shown):
    """Write drawings as PNG files; return the same items with the files' bytes instead of arrays."""
    from tinyseg import files

    items = []
    for number, item in enumerate(shown, 1):
        drawings = {kind: _png(drawing) for kind, drawing in item["drawings"].items()}
        for kind, png in drawings.items():
            files.write_bytes(folder / "pictures" / f"{prefix}_{number}_{kind}.png", png)
        items.append({**item, "drawings": drawings})
    return items


def _png(drawing):
    """Return a drawing as the bytes of a PNG file."""
    import io

    from PIL import Image

    from tinyseg import draw

    buffer = io.BytesIO()
    Image.fromarray(draw.to_rgb(drawing)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
