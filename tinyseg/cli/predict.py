"""``tinyseg predict``: masks for pictures, or the objects in them."""

import sys
from collections import Counter
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, error_line, number, tile, whole_number
from tinyseg.cli.predict_weights import TORCHVISION_MODELS

_DESCRIPTION = """\
Find with a trained network what it was trained to find, and write for each picture

with a U-Net
  NAME_mask.png         the mask: 0 and 255; with several classes, a picture of class numbers
  NAME_probability.png  how sure the network is: 16-bit grey, 0 is surely not, 65535 surely an
                        object; with several classes NAME_probability.tif, one page per class
  NAME_overlay.png      the mask in colour over the picture, to look at
with a Mask R-CNN or Faster R-CNN
  NAME_overlay.png      boxes, classes, scores and masks over the picture, to look at
  NAME_instances.png    which object each pixel shows: 16-bit, 0 none; numbers rise with the
                        score, and where objects overlap, the surer one is seen
                        (Mask R-CNN only)
  detections.json       all objects of all pictures in COCO's results format: image_id counts
                        the pictures from 1, file_name (and page, of a file of several) and
                        category are names, object is the number in NAME_instances.png,
                        segmentation the mask as run-lengths

Pictures may be PNG, TIFF or JPEG files, folders of them, or globs such as 'new/*.tif'. A TIFF
file of several pages gives NAME_000, NAME_001, ... A picture that cannot be read is named and
passed over. Pictures themselves are never written over."""

_EXAMPLE = """\
  tinyseg predict --weights runs/cells/best.safetensors photo.jpg scans/ --out masks
  tinyseg predict --model maskrcnn_resnet50_fpn --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth \\
      --frozen-bn-eps 0 photo.jpg"""


def add_parser(commands):
    """Add ``predict`` to the commands."""
    parser = add_command(
        commands,
        "predict",
        run,
        "write masks, or objects, and overlays for pictures, with a trained network",
        _DESCRIPTION,
        _EXAMPLE,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture file, folder of pictures, or glob")
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="best.safetensors of a training run, or see --model"
    )
    parser.add_argument("--out", default="masks", metavar="DIR", help="folder to write to (default: masks)")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote to --out")
    parser.add_argument(
        "--threshold",
        type=number(0, 1),
        metavar="X",
        help="probability from which a pixel belongs to an object (default: as the weights say, usually 0.5)",
    )
    _add_options_by_kind(parser)
    add_common(parser)


def _add_options_by_kind(parser):
    """Add the options that suit one kind of network only."""
    unet = parser.add_argument_group("with a U-Net")
    unet.add_argument(
        "--tile",
        type=tile,
        metavar="PIXELS",
        help="side of the pieces that large pictures are cut into to save memory; the result is the same without a "
        "seam (default: auto, half a gigabyte at most; none: never cut)",
    )
    detector = parser.add_argument_group("with a Mask R-CNN or Faster R-CNN")
    detector.add_argument(
        "--score",
        type=number(0, 1),
        metavar="X",
        help="leave out objects whose score, from 0 to 1, is not above this (default: 0.5)",
    )
    detector.add_argument(
        "--max-objects",
        type=_object_count,
        metavar="N",
        help="of each picture, at most this many, the surest (default: as the network is set, usually 100)",
    )
    detector.add_argument(
        "--model",
        choices=TORCHVISION_MODELS,
        help="the network of torchvision whose plain state dict (.pth, .safetensors, .npz) --weights is",
    )
    detector.add_argument(
        "--frozen-bn-eps",
        type=number(0),
        metavar="X",
        help="with --model, for weights with frozen batch normalisation: its eps. 0 for those that torchvision "
        "published in 2019 (COCO_V1), else 1e-5",
    )


def _object_count(text):
    """Convert a number of objects that 16 bits can number."""
    import argparse

    value = whole_number(1)(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{value} is more than 65535")
    return value


def run(args):
    """Predict; return 0, or 1 if some of the pictures failed."""
    from tinyseg import files
    from tinyseg.backend import peak_memory

    predictor = _predictor(args)
    failures: list[str] = []
    pages = _pages(args.pictures, failures)
    folder = Path(args.out)
    plan = plan_outputs(pages, folder, predictor.endings)
    _protect(plan, [folder / name for name in predictor.run_files], args.overwrite)
    if plan:
        files.make_folder(folder)
    done = 0
    try:
        for image_id, (path, page, outputs) in enumerate(plan, 1):
            try:
                picture, x, note = _read(path, page, predictor.channels)
                found = predictor.predict(x)
            except (ValueError, OSError, MemoryError) as error:
                failures.append(_failure(path, page, error))
                continue
            source = {"image_id": image_id, "file_name": path.name, **({} if page is None else {"page": page})}
            words, shown = predictor.write(outputs, picture, found, source)
            done += 1
            print(f"{_named(path, page)}{note}: {words}, {shown}", flush=True)
    finally:
        if done:
            predictor.finish(folder)
    peak = peak_memory()
    used = "" if peak is None else f"; peak memory {peak:.0f} MiB"
    print(f"{done} of {done + len(failures)} pictures done; {predictor.written.format(folder)}{used}")
    if failures:
        print(f"tinyseg: error: {len(failures)} failed: {failures[0]}", file=sys.stderr)
        for failure in failures[1:]:
            print(f"    {failure}", file=sys.stderr)
        return 1
    return 0


def _predictor(args):
    """Return what predicts and writes, by the kind of network."""
    from tinyseg.cli.predict_masks import MaskPredictor
    from tinyseg.cli.predict_objects import ObjectPredictor
    from tinyseg.cli.predict_weights import load

    model, info = load(args.weights, args.model, args.frozen_bn_eps)
    return (MaskPredictor if info["kind"] == "unet" else ObjectPredictor)(model, info, args)


def _named(path, page):
    """Return the name of a picture in messages."""
    return str(path) if page is None else f"{path} page {page}"


def _failure(path, page, error):
    """Return an error in one line that names the picture once."""
    line = error_line(error)
    return line if str(path) in line else f"{_named(path, page)}: {line}"


def _pages(patterns, failures):
    """Return (path, page) of all pictures; page None for a file with one. What is wrong goes to ``failures``."""
    from tinyseg.data import count_pages, find_pictures

    found: dict[Path, Path] = {}
    for pattern in patterns:
        try:
            paths = find_pictures([pattern])
        except (ValueError, OSError) as error:
            failures.append(error_line(error))
            continue
        for path in paths:
            found.setdefault(path.resolve(), path)
    pages: list[tuple[Path, int | None]] = []
    for path in found.values():
        try:
            count = count_pages(path)
        except (ValueError, OSError) as error:
            failures.append(_failure(path, None, error))
            continue
        pages += [(path, None)] if count == 1 else [(path, page) for page in range(count)]
    return pages


def plan_outputs(pages, folder, endings):
    """Choose distinct names for what is written.

    Parameters
    ----------
    pages : list of (pathlib.Path, int or None)
        Pictures, with the page of a file of several.
    folder : pathlib.Path
        Where to write.
    endings : dict of str
        What is written for each picture, and how its name goes on: ``{"mask": "_mask.png"}``.

    Returns
    -------
    list of (pathlib.Path, int or None, dict of pathlib.Path)
        Each picture with its files, by the keys of ``endings``. Names are the pictures' without the ending; where two
        would be the same, the ending is added, then the folder, then a number.
    """
    forms = [
        lambda path: path.stem,
        lambda path: f"{path.stem}_{path.suffix[1:].lower()}",
        lambda path: f"{path.resolve().parent.name}_{path.stem}_{path.suffix[1:].lower()}",
    ]
    names = [[form(path) + ("" if page is None else f"_{page:03d}") for form in forms] for path, page in pages]
    counts = [Counter(candidates[i].lower() for candidates in names) for i in range(len(forms))]
    taken, plan = set(), []
    for (path, page), candidates in zip(pages, names, strict=True):
        unique = [name for name, count in zip(candidates, counts, strict=True) if count[name.lower()] == 1]
        name = stem = (unique or candidates[-1:])[0]
        number = 2
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        outputs = {kind: folder / f"{name}{ending}" for kind, ending in endings.items()}
        plan.append((path, page, outputs))
    return plan


def _protect(plan, run_files, overwrite):
    """Refuse to write over a picture, and over anything else unless that is wanted."""
    pictures = {path.resolve() for path, _, _ in plan}
    for target in [*run_files, *(target for _, _, outputs in plan for target in outputs.values())]:
        if target.resolve() in pictures:
            raise ValueError(f"{target} is one of the pictures and would be written over; choose another --out")
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} is there already; add --overwrite, or choose another --out")


def _read(path, page, channels):
    """Return a picture, the same with the channels that the network wants, and a note where they had to be changed."""
    from tinyseg.data import read_picture, to_channels

    picture = read_picture(path, page=page)
    x = to_channels(picture, channels, name=str(path))
    if x is picture:
        return picture, x, ""
    return picture, x, " (turned to grey for this network)" if channels == 1 else " (grey as red, green and blue)"
