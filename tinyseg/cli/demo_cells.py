"""The first part of ``tinyseg demo``: a U-Net learns which pixels belong to cells."""


def train(steps, seed, progress=True):
    """Train a U-Net on made-up pictures of cells.

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
    model : tinyseg.models.UNet
        The network.
    history : tinyseg.training.History
        Of the training.
    settings : dict
        For the page: ``parameters``, ``pictures``, ``picture_size`` and what `tinyseg.training.fit` was told.
    samples : list of tinyseg.data.Sample
        Pictures that took no part.
    """
    from tinyseg import manual_seed
    from tinyseg.data import SyntheticCells
    from tinyseg.models import UNet
    from tinyseg.training import fit

    pictures = SyntheticCells(46, 192, seed, noise=0.12)
    made = [pictures[i] for i in range(len(pictures))]
    train, val, test = made[:36], made[36:42], made[42:]
    manual_seed(seed)
    model = UNet(1, 1, (8, 16, 32, 64))
    options = {"batch_size": 8, "crop": 128, "learning_rate": 5e-3, "steps_per_epoch": max(1, steps // 8)}
    history = fit(model, train, val, steps=steps, seed=seed, progress=progress, **options)
    settings = {
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "pictures": len(train),
        "picture_size": train[0].picture.shape[1],
        **options,
    }
    return model, history, settings, test


def look(model, samples):
    """Let the network look at pictures.

    Parameters
    ----------
    model : tinyseg.models.UNet
        The network.
    samples : list of tinyseg.data.Sample
        Pictures with truth.

    Returns
    -------
    shown : list of dict
        One per picture, the best first: ``scores`` and ``drawings``, arrays by name.
    summary : dict
        As `tinyseg.evaluation.SegmentationScores.summary` gives it.
    """
    from tinyseg import draw
    from tinyseg.evaluation import SegmentationScores, predict, to_mask

    scores, shown = SegmentationScores(), []
    for sample in samples:
        probability = predict(model, sample.picture)
        mask = to_mask(probability)
        entry = scores.update(mask, sample.mask, sample.name)
        drawings = {
            "picture": sample.picture,
            "truth": draw.overlay(sample.picture, sample.mask),
            "probability": draw.probability_map(probability),
            "mask": draw.overlay(sample.picture, mask),
            "errors": draw.errors(sample.picture, sample.mask, mask),
        }
        shown.append({"scores": entry, "drawings": drawings})
    shown.sort(key=lambda item: -item["scores"]["dice"])
    return shown, scores.summary()
