"""``tinyseg predict``: masks for pictures."""

import sys
from collections import Counter
from pathlib import Path

from tinyseg.cli.common import add_command, add_common, error_line, number, tile

_DESCRIPTION = """\
Find with a trained network what it was trained to find, and write for each picture
  NAME_mask.png         the mask: 0 and 255; with several classes, a picture of class numbers
  NAME_probability.png  how sure the network is: 16-bit grey, 0 is surely not, 65535 surely an
                        object; with several classes NAME_probability.tif, one page per class
  NAME_overlay.png      the mask in colour over the picture, to look at
Pictures may be PNG, TIFF or JPEG files, folders of them, or globs such as 'new/*.tif'. A TIFF
file of several pages gives NAME_000, NAME_001, ... A picture that cannot be read is named and
passed over. Pictures themselves are never written over."""

_EXAMPLE = "  tinyseg predict --weights runs/cells/best.safetensors photo.jpg scans/ --out masks"


def add_parser(commands):
    """Add ``predict`` to the commands."""
    parser = add_command(
        commands,
        "predict",
        run,
        "write masks and overlays for pictures, with a trained network",
        _DESCRIPTION,
        _EXAMPLE,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture file, folder of pictures, or glob")
    parser.add_argument("--weights", required=True, metavar="FILE", help="best.safetensors of a training run")
    parser.add_argument("--out", default="masks", metavar="DIR", help="folder to write to (default: masks)")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote to --out")
    parser.add_argument(
        "--threshold",
        type=number(0, 1),
        metavar="X",
        help="probability from which a pixel belongs to an object (default: as the weights say, usually 0.5)",
    )
    parser.add_argument(
        "--tile",
        type=tile,
        default="auto",
        metavar="PIXELS",
        help="side of the pieces that large pictures are cut into to save memory; the result is the same without a "
        "seam (default: auto, half a gigabyte at most; none: never cut)",
    )
    add_common(parser)


def run(args):
    """Predict; return 0, or 1 if some of the pictures failed."""
    from tinyseg import files
    from tinyseg.training import load_model

    model, info = load_model(args.weights)
    threshold = info["threshold"] if args.threshold is None else args.threshold
    failures: list[str] = []
    pages = _pages(args.pictures, failures)
    folder = Path(args.out)
    plan = plan_outputs(pages, folder, model.out_channels)
    _protect(plan, args.overwrite)
    if plan:
        files.make_folder(folder)
    done = 0
    for path, page, outputs in plan:
        try:
            picture, x, note = _read(path, page, model.in_channels)
            probabilities = _predict(model, x, info, args.tile)
        except (ValueError, OSError, MemoryError) as error:
            failures.append(_failure(path, page, error))
            continue
        share = _write(outputs, picture, probabilities, threshold)
        done += 1
        print(f"{_named(path, page)}{note}: {share}, {outputs['mask']}", flush=True)
    print(f"{done} of {done + len(failures)} pictures done; masks, probabilities and overlays are in {folder}")
    if failures:
        print(f"tinyseg: error: {len(failures)} failed: {failures[0]}", file=sys.stderr)
        for failure in failures[1:]:
            print(f"    {failure}", file=sys.stderr)
        return 1
    return 0


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


def plan_outputs(pages, folder, classes):
    """Choose distinct names for what is written.

    Parameters
    ----------
    pages : list of (pathlib.Path, int or None)
        Pictures, with the page of a file of several.
    folder : pathlib.Path
        Where to write.
    classes : int
        Outputs of the network.

    Returns
    -------
    list of (pathlib.Path, int or None, dict of pathlib.Path)
        Each picture with its files ``mask``, ``probability`` and ``overlay``. Names are the pictures' without the
        ending; where two would be the same, the ending is added, then the folder, then a number.
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
        outputs = {
            "mask": folder / f"{name}_mask.png",
            "probability": folder / f"{name}_probability.{'png' if classes == 1 else 'tif'}",
            "overlay": folder / f"{name}_overlay.png",
        }
        plan.append((path, page, outputs))
    return plan


def _protect(plan, overwrite):
    """Refuse to write over a picture, and over anything else unless that is wanted."""
    pictures = {path.resolve() for path, _, _ in plan}
    for _, _, outputs in plan:
        for target in outputs.values():
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


def _predict(model, picture, info, tile):
    """Return the probabilities of one picture; a large one, of many tiles, shows how far it is."""
    from tqdm import tqdm

    from tinyseg.evaluation import predict

    with tqdm(unit="tile", desc="predicting", leave=False, delay=2, disable=None) as bar:

        def show(done, total):
            bar.total = total
            bar.update(done - bar.n)

        return predict(model, picture, tile=tile, normalisation=info["normalisation"], before_tile=show)


def _write(outputs, picture, probabilities, threshold):
    """Write the three files; return in words how much was found."""
    import numpy as np

    from tinyseg import draw
    from tinyseg.data import write_mask, write_picture
    from tinyseg.evaluation import to_mask

    classes = probabilities.shape[0]
    mask = to_mask(probabilities, threshold)
    write_mask(outputs["mask"], mask, classes)
    if classes == 1:
        write_picture(outputs["probability"], np.clip(probabilities[0], 0, 1), bits=16)
    else:
        _write_pages(outputs["probability"], probabilities)
    shown = picture if picture.shape[0] in (1, 3) else picture[:1]
    dim = shown.size and (shown.min() < 0 or shown.max() > 1 or shown.max() <= 0.5)
    draw.save(outputs["overlay"], draw.overlay(shown, mask, stretch=bool(dim)))
    if classes == 1:
        return f"{mask.mean():.1%} foreground"
    present = np.unique(mask)
    return f"classes {', '.join(map(str, present))}"


def _write_pages(path, probabilities):
    """Write one 16-bit page per class."""
    import numpy as np
    import tifffile

    from tinyseg.files import atomic_write

    pages = np.rint(np.clip(probabilities, 0, 1) * 65535).astype(np.uint16)
    with atomic_write(path) as file:
        tifffile.imwrite(file, pages, photometric="minisblack", compression="zlib", metadata=None)
