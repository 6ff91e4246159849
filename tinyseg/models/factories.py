"""Ready-made detectors, and their description as plain values, from which they can be built again."""

import json
from functools import partial
from os import fspath

from tinyseg import boxes as box_tools
from tinyseg import nn
from tinyseg import weights as weight_files
from tinyseg.models import resnet
from tinyseg.models.detectors import FasterRCNN, MaskRCNN
from tinyseg.models.fpn import BackboneWithFPN, SingleLevelBackbone, freeze_layers

_RESNETS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
}


def resnet_backbone(
    name,
    *,
    fpn=True,
    norm="batch",
    frozen_bn_eps=1e-5,
    trainable_layers=None,
    returned_layers=None,
    channels=256,
    width=64,
):
    """Return a residual network as the backbone of a detector.

    Parameters
    ----------
    name : {"resnet18", "resnet34", "resnet50", "resnet101"}
        Which one.
    fpn : bool
        Whether to put a feature pyramid on top. Otherwise there is one map.
    norm : {"batch", "frozen"}
        `tinyseg.nn.BatchNorm2d`, or `tinyseg.nn.FrozenBatchNorm2d` for pretrained weights.
    frozen_bn_eps : float
        For ``"frozen"``: its eps. The weights that torchvision published in 2019 (COCO_V1) need 0.
    trainable_layers : int, optional
        See `tinyseg.models.freeze_layers`; if left out 5, and 3 with frozen normalisation, as in torchvision.
    returned_layers : sequence of int, optional
        Stages that the pyramid stands on, all four if left out; or the one stage of the single map, 3 if left out.
    channels : int
        Channels of the pyramid.
    width : int
        Channels of the network's first stage; 64 in the paper, fewer are faster.

    Returns
    -------
    BackboneWithFPN or SingleLevelBackbone

    Raises
    ------
    ValueError
        If a name or number is another.
    """
    if name not in _RESNETS:
        raise ValueError(f"backbone is {name!r}; expected one of {', '.join(_RESNETS)}")
    if norm not in ("batch", "frozen"):
        raise ValueError(f"norm is {norm!r}; expected 'batch' or 'frozen'")
    layer = nn.BatchNorm2d if norm == "batch" else partial(nn.FrozenBatchNorm2d, eps=frozen_bn_eps)
    body = _RESNETS[name](width=width, norm_layer=layer)
    backbone: BackboneWithFPN | SingleLevelBackbone
    if fpn:
        backbone = BackboneWithFPN(body, (1, 2, 3, 4) if returned_layers is None else returned_layers, channels)
    else:
        stages = (3,) if returned_layers is None else tuple(returned_layers)
        if len(stages) != 1:
            raise ValueError(f"returned_layers is {returned_layers!r}; expected one stage without a pyramid")
        backbone = SingleLevelBackbone(body, stages[0])
    if trainable_layers is None:
        trainable_layers = 5 if norm == "batch" else 3
    freeze_layers(backbone, trainable_layers)
    return backbone


def faster_rcnn(num_classes, backbone="resnet18", **options):
    """Return a Faster R-CNN for pictures and objects of any size.

    Parameters
    ----------
    num_classes : int
        Classes with the background.
    backbone : {"resnet18", "resnet34", "resnet50", "resnet101"}
        The residual network.
    **options
        Those of `resnet_backbone`, and ``anchor_sizes``: a sequence of sizes in pixels for each map (five with a
        pyramid), or one for the single map; ``aspect_ratios``; and those of `FasterRCNN`. Left out, pictures keep
        their size and their values (``min_size=None``, ``image_mean=(0, 0, 0)``, ``image_std=(1, 1, 1)``), since
        nothing here was trained on ImageNet.

    Returns
    -------
    FasterRCNN
        With ``config``.

    Examples
    --------
    >>> import tinyseg
    >>> model = tinyseg.models.faster_rcnn(2, width=8, channels=16, anchor_sizes=[[8], [16], [32], [64], [128]])
    >>> model.rpn.anchor_generator.num_anchors_per_location()
    [3, 3, 3, 3, 3]
    """
    return _small("fasterrcnn", FasterRCNN, num_classes, backbone, options)


def mask_rcnn(num_classes, backbone="resnet18", **options):
    """Return a Mask R-CNN for pictures and objects of any size.

    Parameters
    ----------
    num_classes : int
        Classes with the background.
    backbone : {"resnet18", "resnet34", "resnet50", "resnet101"}
        The residual network.
    **options
        As for `faster_rcnn`, and those of `MaskRCNN`.

    Returns
    -------
    MaskRCNN
        With ``config``.
    """
    return _small("maskrcnn", MaskRCNN, num_classes, backbone, options)


_BACKBONE_OPTIONS = (*("fpn", "norm", "frozen_bn_eps", "trainable_layers", "returned_layers", "channels", "width"),)


def _small(kind, model_class, num_classes, backbone, options):
    """Build a detector, and note what it was built from."""
    config = {"kind": kind, "builder": "small", "num_classes": num_classes, "backbone": backbone, **options}
    options = {"min_size": None, "max_size": None, "image_mean": (0, 0, 0), "image_std": (1, 1, 1), **options}
    body = resnet_backbone(backbone, **{key: options.pop(key) for key in _BACKBONE_OPTIONS if key in options})
    sizes, ratios = options.pop("anchor_sizes", None), options.pop("aspect_ratios", (0.5, 1.0, 2.0))
    if sizes is None:
        sizes = (
            [[32, 64, 128, 256, 512]] if isinstance(body, SingleLevelBackbone) else [[32], [64], [128], [256], [512]]
        )
    levels = 1 if isinstance(body, SingleLevelBackbone) else len(body.pooled_names) + 1
    if len(sizes) != levels or any(isinstance(size, int | float) for size in sizes):
        raise ValueError(f"anchor_sizes is {sizes!r}; expected a list of sizes for each of {levels} maps")
    anchors = box_tools.AnchorGenerator(sizes, ratios)
    model = model_class(body, num_classes, rpn_anchor_generator=anchors, **options)
    model.config = _plain(config)
    return model


def fasterrcnn_resnet50_fpn(
    num_classes=91, *, weights=None, weights_backbone=None, norm="batch", frozen_bn_eps=None,
    trainable_backbone_layers=None, **kwargs
):  # fmt: skip
    """Return torchvision's Faster R-CNN: ResNet-50 with a feature pyramid.

    Parameters
    ----------
    num_classes : int
        Classes with the background.
    weights : str or path-like, optional
        File of weights to load, torchvision's published ones, say. Nothing is downloaded.
    weights_backbone : str or path-like, optional
        File of a classifier's weights (`resnet50`) to load into the backbone.
    norm : {"batch", "frozen"}
        torchvision has ``"batch"`` where it loads no weights, and ``"frozen"`` where it does.
    frozen_bn_eps : float, optional
        For ``"frozen"``: 1e-5 if left out. With ``weights`` it must be given, as the file does not tell it:
        torchvision's COCO_V1 weights of 2019 need 0.
    trainable_backbone_layers : int, optional
        See `tinyseg.models.freeze_layers`; if left out 5, and 3 with frozen normalisation.
    **kwargs
        Those of `FasterRCNN`.

    Returns
    -------
    FasterRCNN
        With ``config``.

    Raises
    ------
    ValueError, KeyError, OSError
        If an option is wrong, or the weights do not fit or cannot be read.
    """
    return _published("fasterrcnn", FasterRCNN, num_classes, weights, weights_backbone, kwargs, norm=norm,
                      frozen_bn_eps=frozen_bn_eps, trainable_layers=trainable_backbone_layers)  # fmt: skip


def maskrcnn_resnet50_fpn(
    num_classes=91, *, weights=None, weights_backbone=None, norm="batch", frozen_bn_eps=None,
    trainable_backbone_layers=None, **kwargs
):  # fmt: skip
    """Return torchvision's Mask R-CNN: ResNet-50 with a feature pyramid.

    Parameters
    ----------
    num_classes : int
        Classes with the background.
    weights, weights_backbone, norm, frozen_bn_eps, trainable_backbone_layers
        As for `fasterrcnn_resnet50_fpn`.
    **kwargs
        Those of `MaskRCNN`.

    Returns
    -------
    MaskRCNN
        With ``config``.

    Raises
    ------
    ValueError, KeyError, OSError
        If an option is wrong, or the weights do not fit or cannot be read.
    """
    return _published("maskrcnn", MaskRCNN, num_classes, weights, weights_backbone, kwargs, norm=norm,
                      frozen_bn_eps=frozen_bn_eps, trainable_layers=trainable_backbone_layers)  # fmt: skip


def _published(kind, model_class, num_classes, weights, weights_backbone, kwargs, **of_backbone):
    """Build a detector with torchvision's defaults."""
    if of_backbone["frozen_bn_eps"] is None:
        if of_backbone["norm"] == "frozen" and weights is not None:
            raise ValueError(
                "frozen_bn_eps is missing; expected the eps that the frozen normalisation of these weights was trained "
                "with (0 for torchvision's COCO_V1 of 2019, else 1e-5)"
            )
        of_backbone["frozen_bn_eps"] = 1e-5
    backbone = resnet_backbone("resnet50", **of_backbone)
    model = model_class(backbone, num_classes, **kwargs)
    model.config = _plain(
        {"kind": kind, "builder": "resnet50_fpn", "num_classes": num_classes, **of_backbone, **kwargs}
    )
    if weights_backbone is not None:
        state = weight_files.load(_file("weights_backbone", weights_backbone))
        backbone.body.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    if weights is not None:
        model.load_state_dict(weight_files.load(_file("weights", weights)))
    return model


def _file(name, path):
    """Return a path; refuse torchvision's names for files that it would download."""
    text = str(getattr(path, "name", path)) if not hasattr(path, "__fspath__") else fspath(path)
    if text in ("DEFAULT", "COCO_V1", "IMAGENET1K_V1", "IMAGENET1K_V2"):
        raise ValueError(f"{name} is {text}; expected the path of a file, since nothing is downloaded")
    return path


def from_config(config):
    """Build the detector that a description stands for, with new weights.

    Parameters
    ----------
    config : dict
        The ``config`` of a detector.

    Returns
    -------
    FasterRCNN or MaskRCNN

    Raises
    ------
    ValueError
        If it is no such description.
    """
    options = dict(config)
    kind, builder = options.pop("kind", None), options.pop("builder", None)
    classes = {"fasterrcnn": FasterRCNN, "maskrcnn": MaskRCNN}
    if kind not in classes or builder not in ("small", "resnet50_fpn") or "num_classes" not in options:
        raise ValueError(f"config has kind {kind!r} and builder {builder!r}; expected the config of a detector")
    if builder == "small":
        return _small(kind, classes[kind], options.pop("num_classes"), options.pop("backbone"), options)
    options["trainable_backbone_layers"] = options.pop("trainable_layers", None)
    make = fasterrcnn_resnet50_fpn if kind == "fasterrcnn" else maskrcnn_resnet50_fpn
    return make(options.pop("num_classes"), **options)


def _plain(config):
    """Return a description as plain values (tuples become lists), or None where modules are among them."""
    try:
        return json.loads(json.dumps(config))
    except TypeError:
        return None
