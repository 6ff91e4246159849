"""``tinyseg train maskrcnn`` and ``tinyseg train fasterrcnn``: train a network that finds objects."""

from tinyseg.cli import train_shared
from tinyseg.cli.common import add_command, add_common, numbers, whole_number

#: Defaults of the command line. In a resumed run, what is not given comes from the run instead.
DEFAULTS = {
    "val_fraction": 0.2,
    "val_most": 200,
    "backbone": "resnet18",
    "width": 64,
    "single_level": False,
    "roi_op": "align",
    "aligned": False,
    "anchor_sizes": None,
    "size": None,
    "rois": 128,
    "norm": "batch",
    "weights": None,
    "steps": 600,
    "batch": 4,
    "lr": 1e-3,
    "optimiser": "adamw",
    "schedule": "cosine",
    "warm_up": 20,
    "weight_decay": 0.01,
    "clip": 5.0,
    "augment": "turns",
    "steps_per_epoch": 100,
    "seed": 0,
}

_PLACES = ("data", "pictures", "labels", "train", "val", "val_data", "val_folder")

_DESCRIPTION = """\
Train a {name} to find every object in a picture: {finds}.

The data is either a folder with pictures in one subfolder and label pictures of the same names
in another, where 0 is the background and each object has a number of its own,
  nuclei/images/01.png    nuclei/labels/01.png
or a JSON file in COCO's format, with the folder of its pictures (--pictures):
  --data train.json --pictures photos --val-data val.json

Pictures keep their size, grey ones become grey colours, and the sizes of anchors (the boxes that
the search starts from) follow from the objects, unless options say otherwise.

The folder --out receives
  best.safetensors  the weights with the best {best}, for 'tinyseg predict'
  last.safetensors  all that is needed to go on with --resume
  metrics.csv       one line per epoch: losses and average precision (AP, AP50, AP75)
  curve.png         the same as a picture
Ctrl-C stops after the step at hand, saves, and says how to go on. Scores need pycocotools:
pip install 'tinyseg[coco]'."""

_EXAMPLE = """\
  tinyseg train {network} --data nuclei --out runs/nuclei
  tinyseg train {network} --data train.json --pictures photos --val-data val.json --out runs/photos
  tinyseg train {network} --resume --out runs/nuclei"""

_NETWORKS = {
    "maskrcnn": {
        "name": "Mask R-CNN",
        "finds": "its box, its class and its mask",
        "best": "average precision of masks",
        "summary": "a Mask R-CNN: box, class and mask of every object",
    },
    "fasterrcnn": {
        "name": "Faster R-CNN",
        "finds": "its box and its class",
        "best": "average precision of boxes",
        "summary": "a Faster R-CNN: box and class of every object",
    },
}


def add_parsers(networks):
    """Add ``maskrcnn`` and ``fasterrcnn`` to the networks."""
    for network, words in _NETWORKS.items():
        parser = add_command(
            networks,
            network,
            run,
            words["summary"],
            _DESCRIPTION.format(**words),
            _EXAMPLE.format(network=network),
        )
        parser.set_defaults(network=network)
        _add_data_options(parser)
        _add_network_options(parser)
        _add_training_options(parser)
        add_common(parser)


def _default(name):
    """Return the words on a default for a help text."""
    return train_shared.default_words(DEFAULTS, name)


def _add_data_options(parser):
    """Add the options on data and folders."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data", metavar="DIR|JSON", help="folder that holds the folders of pictures and labels, or a COCO json file"
    )
    group.add_argument(
        "--pictures", metavar="DIR", help="folder of pictures, in --data or by itself (default: found by name)"
    )
    group.add_argument(
        "--labels", metavar="DIR", help="folder of label pictures, in --data or by itself (default: found by name)"
    )
    train_shared.add_choice_options(group, DEFAULTS)
    group.add_argument(
        "--val-data", metavar="DIR|JSON", help="other data to score the network on, instead of a part of --data"
    )
    group.add_argument(
        "--val-folder", metavar="DIR", help="folder of the pictures of a json --val-data (default: as --pictures)"
    )
    group.add_argument(
        "--val-most",
        type=whole_number(1),
        metavar="N",
        help=f"score on at most N pictures, evenly spread over them {_default('val_most')}",
    )
    train_shared.add_run_options(group)


def _add_network_options(parser):
    """Add the options on the network."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--backbone",
        choices=("resnet18", "resnet34", "resnet50", "resnet101"),
        help=f"network that sees the picture first {_default('backbone')}",
    )
    group.add_argument(
        "--width",
        type=whole_number(1),
        metavar="N",
        help=f"channels of its first stage; the whole network follows, and fewer are faster {_default('width')}",
    )
    group.add_argument(
        "--single-level",
        action="store_const",
        const=True,
        help="one feature map, as in the articles of 2015 to 2017, instead of a feature pyramid",
    )
    group.add_argument(
        "--roi-op", choices=("align", "pool"), help=f"RoIAlign or RoIPool, which rounds boxes {_default('roi_op')}"
    )
    group.add_argument(
        "--aligned",
        action="store_const",
        const=True,
        help="RoIAlign with the half pixel that detectron2 takes off (default: as torchvision, without)",
    )
    group.add_argument(
        "--anchor-sizes",
        type=numbers(1),
        metavar="A,B,...",
        help="sides of the anchors in pixels: 5 for a feature pyramid, one a level; any number for a single level "
        "(default: by the objects)",
    )
    group.add_argument(
        "--size",
        type=whole_number(16),
        metavar="PIXELS",
        help="resize pictures so that the shorter side is this long (default: as they are)",
    )
    group.add_argument(
        "--rois",
        type=whole_number(1),
        metavar="N",
        help="proposals of each picture that a step learns classes, boxes and masks from; torchvision takes 512 "
        + _default("rois"),
    )
    group.add_argument(
        "--norm",
        choices=("batch", "frozen"),
        help="batch normalisation that learns, or keeps the statistics that --weights have " + _default("norm"),
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="weights to start from: a network of tinyseg or torchvision, or a ResNet alone; layers for other classes "
        "start anew (default: random)",
    )


def _add_training_options(parser):
    """Add the options on training."""
    group = parser.add_argument_group("training")
    train_shared.add_training_options(
        group,
        DEFAULTS,
        batch="pictures",
        schedules=("cosine", "linear", "one-cycle", "constant"),
        augment="turns: flips and quarter turns; strong: scale, brightness and noise too; photo: strong, but upright",
    )
    group.add_argument(
        "--warm-up",
        type=whole_number(0),
        metavar="N",
        help=f"steps over which a falling rate rises at first {_default('warm_up')}",
    )


def run(args):
    """Train; return the exit code."""
    from tinyseg import manual_seed
    from tinyseg.cli import detector_setup
    from tinyseg.training import RunFolder

    folder = RunFolder(args.out)
    if not args.resume:
        folder.refuse_another_run()
    settings, stored = _settings(args, folder)
    train, val, places = detector_setup.open_data(settings, masks=args.network == "maskrcnn")
    settings.update(places)
    say = train_shared.sayer(args)
    found = detector_setup.survey(train, settings["size"])
    if found.most == 1 < len(found.sides):
        say(
            "note: no picture has more than one object; in label pictures each object needs a number of its own, and a "
            "mask of 0 and 255 is one object"
        )
    if settings["anchor_sizes"] is None:
        settings["anchor_sizes"] = detector_setup.anchor_sizes(found, not settings["single_level"])
        say(f"objects: {found.words()}; anchors of {_listed(settings['anchor_sizes'])} pixels follow from them")
    manual_seed(settings["seed"])
    info = detector_setup.classes(train)
    model = detector_setup.build(args.network, settings, found, len(info["class_names"]))
    normalisation = stored.get("normalisation", {"kind": "standardise"})
    if settings["weights"] is not None and not stored:
        normalisation = detector_setup.start(model, settings["weights"], say)
    settings["normalisation"] = normalisation
    info["command"] = {"network": args.network, **settings}
    options = {
        "normalisation": normalisation,
        **train_shared.fit_options(settings, ("warm_up",)),
    }
    scored = f"scoring it on {len(val)}" if len(val) else "without scoring it"
    name = _NETWORKS[args.network]["name"]
    say(f"training a {name} ({settings['backbone']}) on {len(train)} pictures, {scored}; everything goes to {args.out}")
    return train_shared.train(args, folder, args.network, model, train, val, info, options, _describe)


def _settings(args, folder):
    """Return all settings (what was given, else what the run to resume has, else the defaults), and the run's own."""
    settings = {**DEFAULTS, **dict.fromkeys(_PLACES)}
    stored = train_shared.stored_settings(args, folder, args.network)
    settings.update({name: value for name, value in stored.items() if name in settings})
    if stored and args.data is not None:  # the data may have moved
        settings.update(pictures=None, labels=None)
    settings.update(train_shared.given_settings(args, settings))
    return settings, stored


def _listed(values):
    """Return numbers as people write a list."""
    return ", ".join(f"{value:g}" for value in values)


def _describe(best):
    """Return the scores of the best weights in words, empty without any."""
    kinds = [kind for kind in ("mask", "box") if best.get(f"{kind}_ap") is not None]
    return "; ".join(
        f"{kind} AP {best[f'{kind}_ap']:.3f}, AP50 {best[f'{kind}_ap50']:.3f}, AP75 {best[f'{kind}_ap75']:.3f}"
        for kind in kinds
    )
