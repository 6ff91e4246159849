"""``tinyseg train unet``: train a U-Net on pictures and masks."""

import sys

from tinyseg.cli.common import add_command, add_common, interval, number, tile, whole_number, widths

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

#: Names of the options here and in `tinyseg.training.Options`.
_OPTIONS = {
    "steps": "steps",
    "batch": "batch_size",
    "crop": "crop",
    "lr": "learning_rate",
    "optimiser": "optimiser",
    "schedule": "schedule",
    "weight_decay": "weight_decay",
    "clip": "clip_norm",
    "dice_weight": "dice_weight",
    "augment": "augment",
    "steps_per_epoch": "steps_per_epoch",
    "seed": "seed",
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


def add_parser(commands):
    """Add ``train`` to the commands."""
    parser = commands.add_parser("train", help="train a network on pictures and masks of yours")
    networks = parser.add_subparsers(title="networks", metavar="NETWORK", required=True)
    unet = add_command(networks, "unet", run, "a U-Net: which class each pixel belongs to", _DESCRIPTION, _EXAMPLE)
    _add_data_options(unet)
    _add_training_options(unet)
    add_common(unet)


def _default(name):
    """Return the words on a default for a help text."""
    value = DEFAULTS[name]
    return f"(default: {','.join(map(str, value)) if isinstance(value, tuple) else value})"


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
    group.add_argument("--train", metavar="NAMES", help="pictures to train on: names, globs, ranges: 00-15 or a*,b07")
    group.add_argument("--val", metavar="NAMES", help="pictures to score the network on while it learns")
    group.add_argument(
        "--val-fraction",
        type=number(0, 0.9),
        metavar="X",
        help=f"without --train and --val: share of the pictures (by --seed) to score on {_default('val_fraction')}",
    )
    group.add_argument(
        "--classes",
        type=whole_number(1),
        metavar="N",
        help="1: object or not. 3 or more: number of classes in the masks, background included " + _default("classes"),
    )
    group.add_argument("--out", metavar="RUN", required=True, help="folder for the run; never written over")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, to bit-identical weights; other options need not be repeated",
    )


def _add_training_options(parser):
    """Add the options on the network and its training."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--widths", type=widths, metavar="A,B,...", help="channels at full, half, ... resolution " + _default("widths")
    )
    group.add_argument("--steps", type=whole_number(1), metavar="N", help=f"optimiser steps {_default('steps')}")
    group.add_argument("--batch", type=whole_number(1), metavar="N", help=f"crops per step {_default('batch')}")
    group.add_argument("--crop", type=whole_number(1), metavar="PIXELS", help=f"side of a crop {_default('crop')}")
    group.add_argument("--lr", type=number(0, above=True), metavar="X", help=f"highest learning rate {_default('lr')}")
    group.add_argument("--optimiser", choices=("adam", "adamw", "sgd"), help=_default("optimiser"))
    group.add_argument(
        "--schedule", choices=("one-cycle", "constant"), help=f"how the learning rate changes {_default('schedule')}"
    )
    group.add_argument("--weight-decay", type=number(0), metavar="X", help=_default("weight_decay"))
    group.add_argument(
        "--clip", type=number(0), metavar="X", help=f"longest gradient; 0 sets no limit {_default('clip')}"
    )
    group.add_argument(
        "--dice-weight", type=number(0), metavar="X", help=f"Dice loss added to cross entropy {_default('dice_weight')}"
    )
    group.add_argument(
        "--augment",
        choices=("turns", "strong", "photo", "none"),
        help="turns: flips and quarter turns; strong: any turn, elastic, brightness too; photo: strong, but upright "
        + _default("augment"),
    )
    group.add_argument(
        "--steps-per-epoch",
        type=whole_number(1),
        metavar="N",
        help=f"steps from one scoring to the next {_default('steps_per_epoch')}",
    )
    group.add_argument("--seed", type=whole_number(0), metavar="N", help=f"of all chance {_default('seed')}")
    group.add_argument(
        "--checkpoint-every",
        type=interval,
        default=("seconds", 60.0),
        metavar="N|TIME",
        help="write last.safetensors every N steps (100) or after a time (30s, 5m), besides after each epoch "
        "(default: 60s)",
    )
    group.add_argument(
        "--tile", type=tile, default="auto", metavar="PIXELS", help="largest piece to score at once (default: auto)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar and no lines")


def run(args):
    """Train; return the exit code."""
    from tinyseg import manual_seed
    from tinyseg.models import UNet
    from tinyseg.training import Interrupted, RunFolder, fit

    folder = RunFolder(args.out)
    if not args.resume:
        folder.refuse_another_run()
    settings = _settings(args, folder)
    train, val, about = _data(args, settings)
    manual_seed(settings["seed"])
    model = UNet(train[0].picture.shape[0], settings["classes"], settings["widths"])
    say = (lambda text: None) if args.quiet else print
    say(f"training a U-Net on {len(train)} pictures, scoring it on {len(val)}; everything goes to {folder.path}")
    if args.resume and not folder.last.exists():
        say("nothing to resume there yet: starting from the beginning")
    options = {ours: settings[name] for name, ours in _OPTIONS.items()}
    options["clip_norm"] = options["clip_norm"] or None
    try:
        history = fit(
            model,
            train,
            val,
            out=folder.path,
            resume=args.resume,
            checkpoint_every=args.checkpoint_every,
            tile=args.tile,
            progress=not args.quiet,
            info={"command": about},
            **options,
        )
    except Interrupted as stop:
        print(f"tinyseg: {stop}:\n  tinyseg train unet --resume --out {_quoted(args.out)}", file=sys.stderr)
        return 130
    _say_result(say, history, folder)
    return 0


def _settings(args, folder):
    """Return all settings: what was given, else what the run to resume has, else the defaults."""
    from tinyseg.training import checkpoint

    settings = dict(DEFAULTS)
    settings.update(dict.fromkeys(("data", "pictures", "masks", "train", "val")))
    if args.resume and folder.last.exists():
        settings.update(checkpoint.load(folder.last)["info"].get("command", {}))
        if args.data is not None:  # the data may have moved
            settings.update(pictures=None, masks=None)
    settings.update({name: getattr(args, name) for name in settings if getattr(args, name) is not None})
    return settings


def _data(args, settings):
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


def _quoted(text):
    """Return a path as a shell takes it."""
    import shlex

    return shlex.quote(str(text)) if sys.platform != "win32" else f'"{text}"'


def _say_result(say, history, folder):
    """Say what came out, and what to do next."""
    best = history.best
    if best["dice"] is not None:
        say(
            f"best after step {best['step']}: Dice {best['dice']:.4f}, IoU {best['iou']:.4f}, "
            f"pixel error {best['pixel_error']:.4f}"
        )
    say(f"{history.step} steps in {history.seconds:.0f} s. Next:")
    say(f"  tinyseg predict --weights {_quoted(folder.best)} PICTURE... --out masks")
