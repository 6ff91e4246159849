"""The second part of ``tinyseg demo``: a Mask R-CNN learns to find objects."""

#: How the small network differs from the papers' large one.
_NETWORK = {
    "width": 32,
    "channels": 32,
    "returned_layers": [1, 2, 3],
    "anchor_sizes": [[16], [32], [64], [128]],
    "representation_size": 256,
    "mask_channels": 32,
    "aligned": True,
    "rpn_pre_nms_top_n_train": 500,
    "rpn_post_nms_top_n_train": 300,
    "rpn_pre_nms_top_n_test": 300,
    "rpn_post_nms_top_n_test": 100,
    "rpn_batch_size_per_image": 128,
    "box_batch_size_per_image": 64,
}
#: Pictures to train on, to score, and to show, and their side in pixels.
TRAIN, TEST, SHOWN, SIZE = 600, 40, 4, 128


def train(steps, seed, progress=True):
    """Train a Mask R-CNN on made-up pictures of shapes.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    seed : int
        Of all chance.
    progress : bool
        Show a progress bar.

    Returns
    -------
    model : tinyseg.models.MaskRCNN
        The network.
    history : tinyseg.training.History
        Of the training.
    settings : dict
        For the page: ``parameters``, ``pictures``, ``picture_size`` and what `tinyseg.training.fit` was told.
    samples : list of tinyseg.data.Sample
        Pictures that took no part.
    """
    from tinyseg import manual_seed
    from tinyseg.data import SyntheticShapes
    from tinyseg.models import mask_rcnn
    from tinyseg.training import fit

    pictures = SyntheticShapes(TRAIN + TEST, SIZE, seed, count=(2, 4), radius=(14, 30))
    made = [pictures[i] for i in range(len(pictures))]
    manual_seed(seed)
    model = mask_rcnn(pictures.num_classes, "resnet18", **_NETWORK)
    options = {"batch_size": 4, "learning_rate": 2e-3, "normalisation": "standardise", "augment": "turns"}
    length = max(1, steps // 4)
    history = fit(model, made[:TRAIN], steps=steps, steps_per_epoch=length, seed=seed, progress=progress, **options)
    settings = {
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "pictures": TRAIN,
        "picture_size": SIZE,
        **options,
    }
    return model, history, settings, made[TRAIN:]


def look(model, samples, normalisation, score=0.5, progress=True):
    """Let the network look at pictures.

    Parameters
    ----------
    model : tinyseg.models.MaskRCNN
        The network.
    samples : list of tinyseg.data.Sample
        Pictures with truth.
    normalisation : str or dict
        As in the training.
    score : float
        Objects of a lower score are not shown.
    progress : bool
        Show a progress bar.

    Returns
    -------
    shown : list of dict
        One for each of the first pictures: how many ``objects`` there are, were ``found``, and were made up
        (``extra``); and ``drawings``, arrays by name.
    summary : dict or None
        As `tinyseg.evaluation.CocoScores.summary` gives it, over all pictures; None without pycocotools.
    """
    from tqdm import tqdm

    from tinyseg import no_grad
    from tinyseg.data.normalise import normalise
    from tinyseg.evaluation import CocoScores, evaluating

    try:
        scores = CocoScores(samples[0].class_names)
    except ImportError:
        scores = None
    shown: list[dict] = []
    samples = samples if scores is not None else samples[:SHOWN]
    with evaluating(model), no_grad():
        for sample in tqdm(samples, unit="picture", desc="looking", leave=False, disable=None if progress else True):
            (found,) = model([normalise(sample.picture, normalisation)])
            found = {name: value.to("cpu").numpy() for name, value in found.items()}
            if scores is not None:
                scores.update(found, sample)
            if len(shown) < SHOWN:
                shown.append(_shown(sample, found, score))
    return shown, None if scores is None else scores.summary()


def _shown(sample, found, score):
    """Return one picture's drawings, and how many objects there are, were found, and were made up."""
    from tinyseg import draw

    good = found["scores"] >= score
    found = {name: value[good] for name, value in found.items()}
    truth, prediction = draw.truth_and_prediction(sample, found, scale=3, line_width=2, font_size=14, opacity=0.4)
    right = _found(sample, found)
    return {
        "objects": len(sample.boxes),
        "found": right,
        "extra": int(good.sum()) - right,
        "drawings": {"picture": draw.to_rgb(sample.picture), "truth": truth, "objects": prediction},
    }


def _found(sample, found):
    """Return how many objects were found: of the right class, with a mask that overlaps theirs by half or more."""
    free = list(range(len(sample.classes)))
    true = sample.instance_masks
    for label, mask in zip(found["labels"], found["masks"][:, 0] >= 0.5, strict=True):
        overlaps = {i: (true[i] & mask).sum() / max((true[i] | mask).sum(), 1) for i in free}
        best = max((i for i in free if sample.classes[i] == label), key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= 0.5:
            free.remove(best)
    return len(sample.classes) - len(free)
