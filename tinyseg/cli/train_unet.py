"""``tinyseg train unet``: train a U-Net on pictures and masks."""

from tinyseg.cli import train_shared
from tinyseg.cli.common import add_command, add_common, number, tile, whole_number, widths

#: Defaults of the command line. In a resumed run, what is not given comes from the run instead.
DEFAULTS = {
    "val_fraction": 0.2,
    "steps": 600,
    "batch": 8,
    "crop": 256,
    "widths": (8, 16, 32, 64, 128),
    "classes": 1,
    "lr": 3e-3,
    "optimiser": "adam",
    "schedule": "one-cycle",
    "weight_decay": 0.0,
    "clip": 1.0,
    "dice_weight": 0.0,
    "augment": "turns",
    "steps_per_epoch": 50,
    "seed": 0,
}

_DESCRIPTION = """\
Train a U-Net to find one kind of object (or several classes) in pictures.

The data is a folder with pictures in one subfolder and masks of the same names in another:
  cells/raw/01.tif    cells/masks/01.png
  cells/raw/02.tif    cells/masks/02.png
Masks are 0 where there is nothing and 1 or 255 where there is an object; with --classes 3 or
more, the number of the class. PNG, TIFF (several pages too) and JPEG are read.

The folder --out receives
  best.safetensors  the weights with the best Dice score, for 'tinyseg predict'
  last.safetensors  all that is needed to go on with --resume
  metrics.csv       one line per epoch: loss, Dice, IoU, pixel error
  curve.png         the same as a picture
Ctrl-C stops after the step at hand, saves, and says how to go on."""

_EXAMPLE = """\
  tinyseg train unet --data cells --out runs/cells --steps 600
  tinyseg train unet --resume --out runs/cells"""


def add_parser(networks):
    """Add ``unet`` to the networks."""
    unet = add_command(networks, "unet", run, "a U-Net: which class each pixel belongs to", _DESCRIPTION, _EXAMPLE)
    _add_data_options(unet)
    _add_training_options(unet)
    add_common(unet)


def _default(name):
    """Return the words on a default for a help text."""
    return train_shared.default_words(DEFAULTS, name)


def _add_data_options(parser):
    """Add the options on data and folders."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DIR", help="folder that holds the folders of pictures and masks")
    group.add_argument(
        "--pictures", metavar="DIR", help="folder of pictures, in --data or by itself (default: found by name)"
    )
    group.add_argument(
        "--masks", metavar="DIR", help="folder of masks, in --data or by itself (default: found by name)"
    )
    train_shared.add_choice_options(group, DEFAULTS)
    group.add_argument(
        "--classes",
        type=whole_number(1),
        metavar="N",
        help="1: object or not. 3 or more: number of classes in the masks, background included " + _default("classes"),
    )
    train_shared.add_run_options(group)


def _add_training_options(parser):
    """Add the options on the network and its training."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--widths", type=widths, metavar="A,B,...", help="channels at full, half, ... resolution " + _default("widths")
    )
    group.add_argument("--crop", type=whole_number(1), metavar="PIXELS", help=f"side of a crop {_default('crop')}")
    group.add_argument(
        "--dice-weight", type=number(0), metavar="X", help=f"Dice loss added to cross entropy {_default('dice_weight')}"
    )
    train_shared.add_training_options(
        group,
        DEFAULTS,
        batch="crops",
        schedules=("one-cycle", "constant"),
        augment="turns: flips and quarter turns; strong: any turn, elastic, brightness too; photo: strong, but upright",
    )
    group.add_argument(
        "--tile", type=tile, default="auto", metavar="PIXELS", help="largest piece to score at once (default: auto)"
    )


def run(args):
    """Train; return the exit code."""
    from tinyseg import manual_seed
    from tinyseg.models import UNet
    from tinyseg.training import RunFolder

    folder = RunFolder(args.out)
    if not args.resume:
        folder.refuse_another_run()
    settings = _settings(args, folder)
    train, val, about = _data(settings)
    manual_seed(settings["seed"])
    model = UNet(train[0].picture.shape[0], settings["classes"], settings["widths"])
    say = train_shared.sayer(args)
    say(f"training a U-Net on {len(train)} pictures, scoring it on {len(val)}; everything goes to {folder.path}")
    options = {"tile": args.tile, **train_shared.fit_options(settings, ("crop", "dice_weight"))}
    return train_shared.train(args, folder, "unet", model, train, val, {"command": about}, options, _describe)


def _settings(args, folder):
    """Return all settings: what was given, else what the run to resume has, else the defaults."""
    settings = {**DEFAULTS, **dict.fromkeys(("data", "pictures", "masks", "train", "val"))}
    stored = train_shared.stored_settings(args, folder, "unet")
    settings.update(stored)
    if stored and args.data is not None:  # the data may have moved
        settings.update(pictures=None, masks=None)
    return {**settings, **train_shared.given_settings(args, settings)}


def _data(settings):
    """Return the training set, the validation set, and the settings as the run shall remember them."""
    from tinyseg.cli.data_folders import open_folder
    from tinyseg.data import Subset, split

    dataset, places = open_folder(
        settings["data"], settings["pictures"], settings["masks"], num_classes=settings["classes"]
    )
    train, val = split(
        dataset.names, settings["train"], settings["val"], fraction=settings["val_fraction"], seed=settings["seed"]
    )
    return Subset(dataset, train), Subset(dataset, val), {**settings, **places}


def _describe(best):
    """Return the scores of the best weights in words, empty without any."""
    if best["dice"] is None:
        return ""
    return f"Dice {best['dice']:.4f}, IoU {best['iou']:.4f}, pixel error {best['pixel_error']:.4f}"
