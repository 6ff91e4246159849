"""A detector's run on one picture, stage by stage: what every part of it made of what the part before it gave."""

from contextlib import ExitStack, contextmanager

from tinyseg.backend import moved
from tinyseg.explain.detectors.stages import make_stages
from tinyseg.explain.detectors.xray import DetectorXRay
from tinyseg.explain.networks.runs import unchanged
from tinyseg.models import GeneralizedRCNN
from tinyseg.models.targets import check_targets
from tinyseg.models.transform import resize_boxes
from tinyseg.tensor import Tensor, array_of, no_grad
from tinyseg.watching import watching

#: Modules whose output is kept, by the names that they have in a detector, and what it is called.
_WATCHED = {
    "transform": "batch",
    "backbone.body": "body",
    "backbone": "maps",
    "rpn.head": "head",
    "roi_heads.box_roi_pool": "pooled",
    "roi_heads.box_predictor": "predicted",
    "roi_heads.mask_roi_pool": "mask_pooled",
    "roi_heads.mask_predictor": "mask_logits",
}


def detector(model, picture, target=None, *, class_names=()):
    """Look on while a detector finds objects in a picture; keep all that its parts give each other.

    The detector runs once, as in ``model([picture])`` in evaluation mode under `tinyseg.no_grad`, and what it finds is
    the same bit for bit. Nothing is computed a second time: modules are watched by hooks, and the selections of boxes
    by `tinyseg.watching`. The model, its mode and the source of chance are afterwards as they were before.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or MaskRCNN
        Of any kind: one map or a pyramid, RoIAlign or RoIPool.
    picture : ndarray or Tensor
        ``(C, H, W)``, floats, as the model takes it: normalised, if it was trained on normalised pictures.
    target : dict, optional
        The truth, as for training: ``boxes`` ``(K, 4)`` in pixels of ``picture``, ``labels`` ``(K,)``. With it every
        stage says how many of the true objects it still covers.
    class_names : sequence of str
        Names of class 0, 1, ...

    Returns
    -------
    DetectorXRay
        ``print`` shows the stages as a table, ``figure()`` as pictures, ``html()`` as a page; ``stages`` has the
        arrays; ``lost(i)`` says where true object ``i`` was lost, and why.

    Raises
    ------
    TypeError, ValueError
        If the model is no detector, or picture or truth do not fit it.
    FloatingPointError
        If the network gives NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import tinyseg
    >>> model = tinyseg.models.faster_rcnn(3, width=4, channels=8, representation_size=16)
    >>> picture = np.random.default_rng(0).random((3, 64, 96), np.float32)
    >>> xray = tinyseg.explain.detector(model, picture)
    >>> xray["anchors"].count
    1536
    >>> [stage.name for stage in xray.stages][5:11]
    ['top', 'refined', 'clipped', 'large', 'nms', 'proposals']
    """
    if not isinstance(model, GeneralizedRCNN):
        raise TypeError(f"model is a {type(model).__name__}; expected a FasterRCNN or MaskRCNN")
    given = moved(array_of(picture), "cpu")
    if given.ndim != 3:
        raise ValueError(f"picture has shape {given.shape}; expected (C, H, W)")
    truth = None
    if target is not None:
        (truth,) = check_targets([target], [given], model.num_classes, with_masks=False)
    seen: dict = {}
    with unchanged(model), _seeing(model, seen), no_grad():
        (found,) = model.eval()([picture])
    missing = {"batch", "maps", "head", "anchors", "proposals", "predicted", "detections"} - set(seen)
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"the model does not tell of its {names}; expected a detector made of parts of tinyseg")
    seen["found"] = {name: _plain(value) for name, value in found.items()}
    seen["size"] = given.shape[1:]
    (size,) = seen["batch"].image_sizes
    if truth is not None:
        truth["resized"] = resize_boxes(truth["boxes"], given.shape[1:], size)
    return DetectorXRay(model, given, size, truth, make_stages(model, seen, truth), tuple(class_names))


@contextmanager
def _seeing(model, seen):
    """Keep, in a dictionary, what the parts of a detector give, for the length of a ``with`` block."""
    modules = dict(model.named_modules())

    def keep(name):
        def hook(module, args, output):
            seen[name] = output[0] if name == "batch" else _plain(output)
            if name in ("pooled", "mask_pooled"):  # told just before, unless the operator is somebody's own
                seen[f"{name}_from"] = seen.pop("pooling", None)

        return hook

    def told(subject, values):
        seen[subject] = values

    with ExitStack() as stack:
        for path, name in _WATCHED.items():
            if modules.get(path) is not None:
                stack.callback(modules[path].register_forward_hook(keep(name)).remove)
        stack.enter_context(watching(told))
        yield


def _plain(value):
    """Return tensors, and those in lists and dictionaries, as arrays of the host."""
    if isinstance(value, Tensor):
        return moved(value.array, "cpu")
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value]
