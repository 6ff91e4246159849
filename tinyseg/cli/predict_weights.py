"""Which network ``tinyseg predict`` runs: one trained here, or torchvision's by its name."""

#: Functions of `tinyseg.models` that torchvision's files of the same name fit.
TORCHVISION_MODELS = ("maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn")

#: COCO's categories by their ids, 0 the background; ids without a category are empty (https://cocodataset.org).
COCO_CATEGORIES = tuple(
    """background,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,
    parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,
    suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,
    bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,
    chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,
    toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush""".replace("\n    ", "").split(
        ","
    )
)


def load(path, name, frozen_bn_eps):
    """Read a network.

    Parameters
    ----------
    path : str
        File of weights.
    name : str or None
        One of `TORCHVISION_MODELS` for a plain state dict of it; None for a file that says itself what it holds.
    frozen_bn_eps : float or None
        For a state dict with frozen batch normalisation: what is added to its variances.

    Returns
    -------
    model : Module
        In evaluation mode.
    info : dict
        As `tinyseg.training.load_model` gives it.

    Raises
    ------
    ValueError
        If the file holds other weights, or ``frozen_bn_eps`` is missing or of no use.
    OSError
        If it cannot be read.
    """
    from tinyseg import weights
    from tinyseg.training import load_model

    if name is None:
        if frozen_bn_eps is not None:
            raise ValueError("--frozen-bn-eps goes with --model; files of training runs know theirs")
        try:
            return load_model(path)
        except ValueError:
            _hint_at_model(path)
            raise
    state, metadata = weights.load(path, metadata=True)
    if "tinyseg" in metadata:
        raise ValueError(f"{path} says itself what it holds; leave out --model")
    return _torchvision_model(path, state, name, frozen_bn_eps)


def _hint_at_model(path):
    """Raise the error that names ``--model`` if a file holds the plain weights of a detector."""
    from tinyseg import weights

    state, metadata = weights.load(path, metadata=True)
    if not metadata and any(key.startswith("roi_heads.") for key in state):
        raise ValueError(
            f"{path} holds the weights of a detector, but not which; add --model, such as --model "
            f"{TORCHVISION_MODELS[0]}"
        ) from None


def _torchvision_model(path, state, name, frozen_bn_eps):
    """Return the network of that name with the weights, and what is known about it."""
    from tinyseg import models

    scores = state.get("roi_heads.box_predictor.cls_score.weight")
    if scores is None:
        raise ValueError(f"{path} does not hold the weights of {name}: no roi_heads.box_predictor.cls_score.weight")
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    if frozen and frozen_bn_eps is None:
        raise ValueError(
            f"{path} has frozen batch normalisation, and does not say with which eps: add --frozen-bn-eps 0 for the "
            "weights that torchvision published in 2019 (COCO_V1), else --frozen-bn-eps 1e-5"
        )
    if not frozen and frozen_bn_eps is not None:
        raise ValueError(f"{path} has batch normalisation that is not frozen; leave out --frozen-bn-eps")
    norm = {"norm": "frozen", "frozen_bn_eps": frozen_bn_eps} if frozen else {"norm": "batch"}
    model = getattr(models, name)(scores.shape[0], **norm)
    try:
        model.load_state_dict(state)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    info = {
        "kind": "maskrcnn" if name.startswith("mask") else "fasterrcnn",
        "normalisation": {"kind": "none"},  # the network's own transform normalises
        "threshold": 0.5,
        "class_names": COCO_CATEGORIES if scores.shape[0] == len(COCO_CATEGORIES) else (),
        "category_ids": (),
    }
    return model.eval(), info
