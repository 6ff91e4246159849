"""What `tinyseg train` makes of the data of a detector: data sets, sizes of anchors, the network."""

from dataclasses import dataclass

import numpy as np


def open_data(settings, masks):
    """Open what a detector is trained and scored on.

    Parameters
    ----------
    settings : dict
        Of the command line.
    masks : bool
        Whether the objects must have masks.

    Returns
    -------
    train, val : data set
        The second may be empty.
    places : dict
        Settings to remember: files and folders as absolute paths.

    Raises
    ------
    ValueError, OSError
        If the data are not there, or wrong.
    """
    from tinyseg.cli.data_folders import open_objects
    from tinyseg.data import Subset, select, split

    dataset, places = open_objects(settings["data"], settings["pictures"], settings["labels"], masks=masks)
    if settings["val_data"] is None:
        chosen = split(
            dataset.names, settings["train"], settings["val"], fraction=settings["val_fraction"], seed=settings["seed"]
        )
        train, val = Subset(dataset, chosen[0]), Subset(dataset, chosen[1])
    else:
        other, is_json = settings["val_folder"], settings["val_data"].lower().endswith(".json")
        if other is not None and not is_json:
            raise ValueError("--val-folder is for a json --val-data; a folder of data has its pictures in it")
        if other is None and is_json:
            other = settings["pictures"]
        scored, there = open_objects(settings["val_data"], other, None, option="--val-data", masks=masks)
        places.update(val_data=there["data"], val_folder=there["pictures"] if settings["val_folder"] else None)
        check_same_classes(dataset, scored)
        everything = range(len(dataset))
        train = Subset(dataset, everything if settings["train"] is None else select(dataset.names, settings["train"]))
        everything = range(len(scored))
        val = Subset(scored, everything if settings["val"] is None else select(scored.names, settings["val"]))
    most = settings["val_most"]
    if len(val) > most:
        val = Subset(val, np.linspace(0, len(val) - 1, most).round().astype(int))
    return train, val, places


def check_same_classes(train, val):
    """Raise a ValueError if two data sets have other classes."""
    for name in ("class_names", "category_ids"):
        first, second = (tuple(getattr(dataset, name, ())) for dataset in (train, val))
        if first != second:
            raise ValueError(
                f"--data has {len(first)} {name} and --val-data {len(second)}, or others; expected the same classes"
            )


def classes(dataset):
    """Return names and category ids of a data set's classes, where it has them: a dict of lists."""
    known = {name: list(getattr(dataset, name, ())) for name in ("class_names", "category_ids")}
    return {name: values for name, values in known.items() if values}


@dataclass(frozen=True)
class Survey:
    """What was seen of the objects of a data set.

    Parameters
    ----------
    sides : ndarray
        Of each object, the side in pixels of the square of its box's area.
    most : int
        Objects in the picture that has most.
    """

    sides: np.ndarray
    most: int

    def words(self):
        """Return it in words."""
        low, middle, high = np.quantile(self.sides, [0.05, 0.5, 0.95])
        return (
            f"{len(self.sides)} seen, {middle:.0f} pixels across (nine of ten {low:.0f} to {high:.0f}), up to "
            f"{self.most} in a picture"
        )


def survey(dataset, size=None, pictures=300):
    """Look at the objects of a data set.

    Parameters
    ----------
    dataset : data set
        Pictures with objects.
    size : int, optional
        Length to which the shorter side of pictures is resized; objects count as large as they are then.
    pictures : int
        Up to this many are looked at, evenly spread.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        If there is no object in them.
    """
    sides, most = [], 0
    for i in np.unique(np.linspace(0, len(dataset) - 1, min(pictures, len(dataset))).astype(int)):
        sample = dataset[int(i)]
        boxes = sample.boxes.astype(np.float64)
        scale = 1.0 if size is None else size / min(sample.picture.shape[1:])
        sides.append(scale * np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
        most = max(most, len(boxes))
    if not most:
        raise ValueError(f"there is no object in {len(sides)} training pictures; expected some to learn from")
    return Survey(np.concatenate(sides), most)


def anchor_sizes(found, pyramid=True):
    """Return five sizes of anchors that suit the objects.

    Parameters
    ----------
    found : Survey
        What was seen.
    pyramid : bool
        Whether there is one size for each level of a feature pyramid, or all on one map.

    Returns
    -------
    tuple of float
        Rising. On a pyramid each is twice the one before, as the levels' cells are, from a power of 2 about the small
        objects on; at least 8 pixels, twice a cell of the finest level, so that neighbours have anchors of their own.
        Where doubling does not reach the large objects, the steps are longer. On one map they are spread evenly, as
        ratios, from the small to the large objects.
    """
    low, high = np.quantile(found.sides, [0.1, 0.98])
    if pyramid:
        first = max(8.0, 2.0 ** np.round(np.log2(max(low, 1.0))))
        last = max(16 * first, high)
    else:
        first, last = max(low, 4.0), max(high, 8.0)
    return tuple(float(size) for size in np.geomspace(first, last, 5).round())


def build(network, settings, found, num_classes):
    """Return the network that settings and data call for, with random weights.

    Parameters
    ----------
    network : {"maskrcnn", "fasterrcnn"}
        Which.
    settings : dict
        Of the command line; ``anchor_sizes`` are numbers.
    found : Survey
        Of the training pictures.
    num_classes : int
        With the background.

    Returns
    -------
    tinyseg.models.FasterRCNN or MaskRCNN
    """
    from tinyseg import models

    sizes, pyramid, width = settings["anchor_sizes"], not settings["single_level"], settings["width"]
    if pyramid and len(sizes) != 5:
        raise ValueError(
            f"--anchor-sizes has {len(sizes)} sizes; expected 5, one for each level of the feature pyramid"
        )
    if settings["norm"] == "frozen" and settings["weights"] is None:
        raise ValueError("--norm frozen without --weights: there are no statistics to keep; leave it out")
    options = {
        "width": width,
        "fpn": pyramid,
        "roi_op": settings["roi_op"],
        "aligned": settings["aligned"],
        "anchor_sizes": [[size] for size in sizes] if pyramid else [list(sizes)],
        "norm": settings["norm"],
        "min_size": settings["size"],
        "box_batch_size_per_image": settings["rois"],
        "box_detections_per_img": 100 if found.most <= 50 else 300,
        "channels": 4 * width,
        "representation_size": 16 * width,
    }
    if network == "fasterrcnn":
        return models.faster_rcnn(num_classes, settings["backbone"], **options)
    return models.mask_rcnn(num_classes, settings["backbone"], mask_channels=4 * width, **options)


def start(model, path, say):
    """Start a network from the weights of a file, say what was not in it, and return how they want pictures prepared.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or MaskRCNN
        Changed in place.
    path : str
        The file.
    say : callable
        Prints a line.

    Returns
    -------
    dict
        The normalisation.
    """
    from tinyseg.training.start import start_from

    normalisation, new = start_from(model, path)
    say(f"starting from {path}" + (f"; new, with random weights: {', '.join(new)}" if new else ", all of it"))
    return normalisation
