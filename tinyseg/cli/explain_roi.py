"""``tinyseg explain roi``: what RoI operators make of a box on a feature map."""

import argparse
import io
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, number

_DESCRIPTION = """\
Show how a box on a picture becomes a small table of numbers: the step between the two stages of
Faster R-CNN and Mask R-CNN. The box is a region of interest, RoI. It is divided into bins, and
each bin takes its number from a feature map, a grid of cells that was computed from the picture.

  roi_pool           rounds the box to whole cells and takes the largest number of each bin
  crop_and_resize    TensorFlow's: reads one point a bin, from corner to corner of the box
  roi_align          reads several points a bin, between the cells, and takes their mean
  roi_align_aligned  the same, half a cell up and to the left: where the box really is

Every step is printed: the box on the map, the bins, each cell or point that is read, its weights,
and the sum. With --out it is drawn too. The numbers are those of the textbook kernels of tinyseg,
digit for digit."""

_EXAMPLE = """\
  tinyseg explain roi --box 0.4 0.6 3.1 2.5
  tinyseg explain roi --box 0 0 2 2 --op roi_align_aligned --ratio 2 --out roi.html
  tinyseg explain roi --box 100 60 220 160 --map features.npy --channel 3 --scale 0.0625 \\
      --output-size 7 --out rois.svg
  tinyseg explain roi --box 12.5 8 40 31 --map photo.png --op roi_pool roi_align_aligned --out rois.png"""

_OPS = ("roi_pool", "crop_and_resize", "roi_align", "roi_align_aligned")
_ENDS = (".svg", ".png", ".html", ".json")


def add_parser(subjects):
    """Add ``roi`` to the subjects."""
    summary = "how RoIPool and RoIAlign make numbers of a box, step by step"
    parser = add_command(subjects, "roi", run, summary, _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "--box", nargs=4, type=float, required=True, metavar=("X1", "Y1", "X2", "Y2"),
        help="left, top, right and bottom of the box, in pixels of the picture",
    )  # fmt: skip
    parser.add_argument(
        "--output-size", type=bins, default=(2, 2), metavar="N|HxW", help="bins down and across (default: 2x2)"
    )
    parser.add_argument(
        "--op", nargs="+", choices=_OPS, default=list(_OPS), metavar="OP",
        help=f"one of these, or several to compare: {', '.join(_OPS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=number(0, above=True), default=1.0, metavar="X",
        help="cells of the feature map per pixel of the picture, 0.0625 for one per 16 pixels (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--ratio", type=int, metavar="N",
        help="points per bin and axis of the two roi_align; 0 or less for as many as the bin has cells, rounded up "
        "(default: that)",
    )  # fmt: skip
    parser.add_argument(
        "--map", metavar="FILE",
        help="the feature map: a .npy file of an array (H, W) or (C, H, W), or a picture, whose grey values are taken "
        "(default: 5 x 5 cells that hold 0, 1, 2, ... in reading order)",
    )  # fmt: skip
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="channel of the map, from 0 (default: 0)")
    parser.add_argument(
        "--bin", type=int, nargs=2, default=(0, 0), metavar=("ROW", "COLUMN"),
        help="the bin to mark in the drawing, with what it reads (default: 0 0)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE",
        help="write a drawing (.svg or .png), a page to explore in a browser (.html), or all numbers (.json)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it is there already")
    add_common(parser)


def bins(text):
    """Convert ``"7"`` or ``"2x3"`` to (down, across)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bins such as 7 or 2x3")
    return int(parts[0]), int(parts[-1])


def run(args):
    """Print the computation, and write it; return the exit code."""
    from tinyseg import explain, files

    out = None if args.out is None else Path(args.out)
    if out is not None:
        if out.suffix.lower() not in _ENDS:
            raise ValueError(f"--out is {args.out!r}; expected a name that ends with {', '.join(_ENDS)}")
        if out.exists() and not args.overwrite:
            raise FileExistsError(f"{out} is there already; add --overwrite, or choose another --out")
    if args.ratio is not None and not any(op.startswith("roi_align") for op in args.op):
        raise ValueError(f"--ratio is {args.ratio}, but --op has no roi_align, which alone takes it")
    how = {"output_size": args.output_size, "spatial_scale": args.scale, "ops": args.op}
    how["sampling_ratio"] = -1 if args.ratio is None else args.ratio
    comparison = explain.roi_compare(_map(args.map), args.box, **how)
    shown = comparison if len(args.op) > 1 else comparison.traces[0]
    comparison.traces[0].chosen(args.channel, tuple(args.bin))  # wrong ones are named before anything is printed
    print("\n\n".join(trace.table(args.channel) for trace in comparison.traces))
    if out is not None:
        files.write_bytes(out, _file(shown, out.suffix.lower(), args.channel, tuple(args.bin)))
        print(f"\nsaved in {out}")
    return 0


def _file(shown, end, channel, place):
    """Return what a file of that name's end holds."""
    if end == ".json":
        return shown.to_json(channel).encode()
    if end == ".html":
        return shown.html(channel).encode()
    if end == ".svg":
        return shown.svg(channel, place).encode()
    buffer = io.BytesIO()
    shown.figure(channel, place).savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _map(path):
    """Return the feature map."""
    import numpy as np

    from tinyseg.data import read_picture, to_channels

    if path is None:
        return np.arange(25.0).reshape(5, 5)
    if Path(path).suffix.lower() != ".npy":
        return to_channels(read_picture(path), 1, name=path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--map {path} is no .npy file of an array of numbers ({error})") from None
    if array.ndim not in (2, 3):
        raise ValueError(f"--map {path} holds an array of shape {array.shape}; expected (H, W) or (C, H, W)")
    return array
