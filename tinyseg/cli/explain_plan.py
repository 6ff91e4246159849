"""``tinyseg explain plan``: what a network runs, call by call."""

import argparse

from tinyseg.cli.common import add_command, add_common, whole_number

_DESCRIPTION = """\
Run a network on a picture, noise if none is given, and print one line for each operator that runs:

  layer      whose weights the operator used (layer1_conv.conv1), or the operator's name
  operator   what ran; 'conv2d + norm + relu' is three of them in one pass
  algorithm  how convolutions were computed; the fastest for their shape is chosen
               winograd   3x3, with a quarter of the multiplications
               points     1x1
               channels   side by side in a vector: channels; for small, deep maps
               pixels     side by side in a vector: pixels of a row; for everything else
  GFLOP      billions of multiplications and additions in the textbook's formula
  MB         read and written
  arithm., memory, bound
             the least milliseconds for so many operations and bytes on this machine, which is
             measured first, and which of the two binds
  measured   the milliseconds that it took

Where 'measured' is near the larger of 'arithm.' and 'memory', nothing is left to gain but by
computing something else. TINYSEG_WINOGRAD=0 in the environment forbids winograd."""

_EXAMPLE = """\
  tinyseg explain plan --model unet --size 224 --batch 10
  tinyseg explain plan --model runs/nuclei/best.safetensors --picture photo.jpg
  tinyseg explain plan --model runs/cells/best.safetensors --size 512 --backward --json plan.json"""

#: What ``--model`` takes besides files, and the function of `tinyseg.models` that makes it.
NETWORKS = {
    "unet": "UNet",
    "maskrcnn": "mask_rcnn",
    "fasterrcnn": "faster_rcnn",
    "maskrcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn",
}


def add_parser(subjects):
    """Add ``plan`` to the subjects."""
    summary = "which kernels a network runs, and how near they come to this machine's best"
    parser = add_command(subjects, "plan", run, summary, _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME|FILE",
        help=f"{', '.join(NETWORKS)} (each with weights that are not trained), or best.safetensors of a training run. "
        "A detector that finds nothing computes no masks",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--size",
        type=picture_size,
        default=(256, 256),
        metavar="HxW",
        help="height and width of pictures of noise, in pixels, such as 480x640; one number for both (default: 256)",
    )
    where.add_argument("--picture", metavar="FILE", help="a picture to run it on instead")
    parser.add_argument("--batch", type=whole_number(1), default=1, metavar="N", help="pictures at a time (default: 1)")
    parser.add_argument(
        "--backward",
        action="store_true",
        help="a step of training, forward and backward, instead of a prediction",
    )
    parser.add_argument("--json", metavar="FILE", help="write everything to this file too, in seconds and bytes")
    add_common(parser)


def picture_size(text):
    """Convert ``"480x640"`` or ``"256"`` to (height, width)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size in pixels such as 480x640 or 256")
    return int(parts[0]), int(parts[-1])


def run(args):
    """Print the plan; return the exit code."""
    from tinyseg import explain, files

    if args.backend not in (None, "cpu"):
        raise ValueError(f"--backend is {args.backend}; only the cpu kernels are planned")
    model, channels = _network(args.model)
    shape = (args.batch, channels, *args.size)
    pictures = shape if args.picture is None else _pictures(args.picture, args.batch, channels)
    plan = explain.plan(model, pictures, backward=args.backward)
    print(plan)
    if args.json is not None:
        files.write_text(args.json, plan.to_json())
        print(f"saved in {args.json}")
    return 0


def _network(name):
    """Return a network by its name or file, and the channels of its pictures."""
    from tinyseg import models
    from tinyseg.training import load_model

    if name in NETWORKS:
        make = getattr(models, NETWORKS[name])
        model = make() if name == "unet" else make(91 if name.endswith("_fpn") else 2)
    else:
        try:
            model, _ = load_model(name)
        except FileNotFoundError:
            raise ValueError(f"--model is {name!r}, which is no file; expected one, or {', '.join(NETWORKS)}") from None
    return model, getattr(model, "in_channels", 3)


def _pictures(path, count, channels):
    """Return a picture so many times, with the channels that the network takes."""
    import numpy as np

    from tinyseg.data import read_picture, to_channels

    picture = to_channels(read_picture(path), channels, name=path)
    return np.repeat(picture[None], count, axis=0)
