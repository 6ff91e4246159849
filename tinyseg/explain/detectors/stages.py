"""The stages of a detector's run: of what was seen, one entry for each step that a reader should look at."""

from dataclasses import dataclass, field

import numpy as np

from tinyseg import ops
from tinyseg.backend import host_work, moved

#: Overlaps, intersection over union, from which on a box covers an object.
RECALL_AT = (0.5, 0.75)


@dataclass(frozen=True, repr=False)
class DetectorStage:
    """One stage of a detector's run on one picture.

    Attributes
    ----------
    name : str
        ``"anchors"``, ``"nms"``, ...
    title : str
        A few words.
    text : str
        A sentence: what this stage does, with the model's own numbers.
    count : int
        How many boxes there are, or maps, or proposals that are described.
    unit : str
        What is counted: ``"boxes"``, ``"maps"``, ...
    boxes : ndarray or None
        ``(K, 4)``: x1, y1, x2, y2 in pixels of the resized picture; of the last stage, ``"found"``, in those of the
        picture itself.
    scores : ndarray or None
        ``(K,)`` probabilities: of any object, and from ``"class_boxes"`` on of the box's class.
    labels : ndarray or None
        ``(K,)`` classes of the boxes.
    levels : ndarray or None
        ``(K,)``: from which of the maps each box comes, by number.
    source : ndarray or None
        ``(K,)``: which box of the stage before (of those with boxes) each one was made of.
    arrays : dict
        What else there is: maps, logits, codes, pooled features.
    recall : dict of float to float
        For an overlap of 0.5 and 0.75, the share of true objects that some box covers; where boxes have classes, some
        box of the object's class. Empty without truth or boxes, and where the truth has no objects.
    """

    name: str
    title: str
    text: str
    count: int
    unit: str = "boxes"
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    levels: np.ndarray | None = None
    source: np.ndarray | None = None
    arrays: dict = field(default_factory=dict)
    recall: dict = field(default_factory=dict)

    def __str__(self):
        recall = "".join(f", recall {value:.2f} at {at}" for at, value in self.recall.items())
        return f"{self.name}: {self.count} {self.unit}{recall}"

    __repr__ = __str__


@host_work()
def overlaps(stage, truth):
    """Return how much every box of a stage overlaps every true object.

    Parameters
    ----------
    stage : DetectorStage
        With boxes.
    truth : dict
        ``boxes``, ``resized`` and ``labels`` of the objects.

    Returns
    -------
    ndarray, shape (objects, K)
        Intersection over union; 0 where either has no area, and for boxes of another class than the object's.
    """
    true = truth["boxes" if stage.name == "found" else "resized"].astype(stage.boxes.dtype)
    if not len(true) or not len(stage.boxes):
        return np.zeros((len(true), len(stage.boxes)), stage.boxes.dtype)
    iou = np.nan_to_num(ops.box_iou(true, np.ascontiguousarray(stage.boxes)))
    return iou if stage.labels is None else iou * (truth["labels"][:, None] == stage.labels)


def make_stages(model, seen, truth):
    """Return the stages of a run.

    Parameters
    ----------
    model : GeneralizedRCNN
        The detector.
    seen : dict
        What was seen of its run.
    truth : dict or None
        As for `overlaps`.

    Returns
    -------
    list of DetectorStage
        In the order of the run.
    """
    made = _Maker(truth)
    _first_stage(made, model, seen)
    _second_stage(made, model, seen)
    return made.stages


class _Maker:
    """Collects stages, and works out the recall of those with boxes."""

    def __init__(self, truth):
        self.truth, self.stages = truth, []

    def __call__(self, name, title, text, count=None, unit="boxes", **rest):
        count = len(rest["boxes"]) if count is None else count
        unit = {"boxes": "box"}.get(unit, unit.rstrip("s")) if count == 1 else unit
        stage = DetectorStage(name, title, text, count, unit, **rest)
        if stage.boxes is not None and self.truth is not None and len(self.truth["boxes"]):
            stage.recall.update(recall_of(stage, self.truth, RECALL_AT))
        self.stages.append(stage)


def recall_of(stage, truth, thresholds):
    """Return, by threshold, the share of true objects that some box of a stage overlaps by so much or more."""
    best = overlaps(stage, truth).max(axis=1, initial=0)
    return {at: float((best >= at).mean()) for at in thresholds}


def _first_stage(made, model, seen):
    """Add the stages up to the proposals."""
    rpn, batch, maps, told = model.rpn, seen["batch"], seen["maps"], seen["proposals"]
    height, width = batch.image_sizes[0]
    tensor, names = moved(batch.tensors.array, "cpu"), list(maps)
    text = _picture_text(model.transform, seen["size"], (height, width), tensor.shape[2:])
    made("picture", "The picture as the network sees it", text, 1, "picture", arrays={"picture": tensor[0]})
    body = seen.get("body", maps)
    shapes = ", ".join(_size(x.shape[1:]) for x in body.values())
    made("backbone", "What the backbone sees", f"A residual network turns the picture into maps of features: {shapes}.",
         len(body), "maps", arrays={name: x[0] for name, x in body.items()})  # fmt: skip
    if list(body) != names:
        shapes = ", ".join(_size(x.shape[1:]) for x in maps.values())
        made("pyramid", "The feature pyramid", "Coarse maps are enlarged and added to finer ones, so that each knows "
             f"what the coarser know: {shapes}.", len(maps), "maps",
             arrays={name: x[0] for name, x in maps.items()})  # fmt: skip
    anchors, sizes = seen["anchors"]["boxes"], seen["anchors"]["level_sizes"]
    level = np.repeat(np.arange(len(sizes)), sizes)
    each = [count // (x.shape[2] * x.shape[3]) for count, x in zip(sizes, maps.values(), strict=True)]
    where = " + ".join(f"{_size(x.shape[2:])}x{n}" for x, n in zip(maps.values(), each, strict=True))
    made("anchors", "Anchors", f"Around every cell of every map stand boxes of fixed sizes and shapes: {where}.",
         boxes=anchors, levels=level)  # fmt: skip
    logits = [x[0] for x in seen["head"][0]]
    made("objectness", "Is there an object?", "For every anchor the region proposal network gives one number, from 0 "
         "to 1 once squashed: how likely it holds an object, of whatever class.", len(logits), "maps",
         arrays=dict(zip(names, logits, strict=True)))  # fmt: skip
    best, codes = told["best"], seen["anchors"]["codes"][0]
    chosen = {"scores": told["scores"], "levels": told["levels"]}
    limit = rpn.pre_nms_top_n["testing"]
    made("top", "The anchors that look most like objects", f"Of each map the {limit} best anchors go on, as they are, "
         "before anything is moved.", boxes=anchors[best], source=best, **chosen)  # fmt: skip
    same = np.arange(len(best))
    made("refined", "Moved and resized", "Four more numbers for every anchor, dx, dy, dw, dh, say how to move and "
         "stretch it to fit the object.", boxes=seen["anchors"]["decoded"][0][best], source=same,
         arrays={"codes": codes[best]}, **chosen)  # fmt: skip
    made("clipped", "Cut off at the picture's border", f"What reaches beyond {width}x{height} is cut off.",
         boxes=told["boxes"], source=same, **chosen)  # fmt: skip
    _rows(made, told, "large", "Without the tiny ones", f"Boxes narrower or lower than {rpn.min_size:g} pixels are "
          "left out.", told["large"], None)  # fmt: skip
    before = told["large"]
    if rpn.score_thresh > 0:
        _rows(made, told, "likely", "Likely enough", f"Boxes with a score below {rpn.score_thresh:g} are left out.",
              told["good"], before)  # fmt: skip
        before = told["good"]
    _rows(
        made,
        told,
        "nms",
        "Without doubles (non-maximum suppression)",
        "From the best score down, each box removes "
        f"all worse ones of its map that overlap it by more than {rpn.nms_thresh:g}.",
        told["apart"],
        before,
    )
    limit = rpn.post_nms_top_n["testing"]
    _rows(made, told, "proposals", "The proposals", f"The {limit} best of all maps together go on to the second "
          "stage.", told["kept"], told["apart"])  # fmt: skip


def _picture_text(transform, before, after, padded):
    """Return what became of the picture."""
    mean, deviation = (", ".join(f"{v:g}" for v in values) for values in (transform.image_mean, transform.image_std))
    same = not any(transform.image_mean) and all(value == 1 for value in transform.image_std)
    text = "Its values as they were given" if same else f"Each channel less {mean}, divided by {deviation}"
    text += "; " + (f"its size kept, {_size(after)}" if after == tuple(before) else f"from {_size(before)} resized to "
                    f"{_size(after)}") + " pixels"  # fmt: skip
    if padded != tuple(after):
        text += f"; zeros added at the right and below, up to {_size(padded)}"
    return text + "."


def _rows(made, told, name, title, text, rows, before):
    """Add a stage of those rows of what was told of; ``before`` are the rows of the stage before, None for all."""
    per_box = {key: told[key][rows] for key in ("boxes", "scores", "levels", "labels") if key in told}
    made(name, title, text, source=rows if before is None else places(before, rows), **per_box)


def places(values, wanted):
    """Return where each of the wanted numbers stands among the values, all different."""
    order = np.argsort(values, kind="stable")
    return order[np.searchsorted(values, wanted, sorter=order)]


def _second_stage(made, model, seen):
    """Add the stages from the proposals to what was found."""
    heads, told, names = model.roi_heads, seen["detections"], list(seen["maps"])
    proposals, scores = made.stages[-1].boxes, made.stages[-1].scores
    count, pool, told_pool = len(proposals), heads.box_roi_pool, seen.get("pooled_from")
    if told_pool is not None:
        pooled_names = [name for name in names if name in pool.featmap_names]
        made("levels", "Which map to look at", _levels_text(pool, told_pool["scales"]), count, "proposals",
             arrays={"levels": told_pool["levels"], "scales": np.array(told_pool["scales"]),
                     "names": np.array(pooled_names)})  # fmt: skip
    if "pooled" in seen:
        bins = _size(seen["pooled"].shape[2:])
        made("pooled", "The features inside every proposal", f"{_operator(pool)} cuts each proposal out of its map as "
             f"{bins} bins, whatever its size.", count, "proposals", arrays={"pooled": seen["pooled"]})  # fmt: skip
    logits, codes = seen["predicted"]
    classes = logits.shape[1]
    made("classes", "What is it?", f"For every proposal a score for each of {classes - 1} classes and the background, "
         "and for each class its own dx, dy, dw, dh.", count, "proposals", arrays={
             "logits": logits, "codes": codes, "objectness": scores,
             "probabilities": told["probabilities"],
         })  # fmt: skip
    told = {**told, "labels": told["classes"]}
    made("class_boxes", "A box for every class", "Each proposal, moved once more, for each class by its own four "
         "numbers, and cut off at the border.", boxes=told["boxes"], scores=told["scores"], labels=told["labels"],
         source=np.repeat(np.arange(count), classes - 1), arrays={"decoded": told["decoded"]})  # fmt: skip
    _rows(made, told, "threshold", "Sure enough", f"Boxes whose class has a score of {heads.score_thresh:g} or less "
          "are left out.", told["sure"], None)  # fmt: skip
    _rows(made, told, "class_large", "Without the tiny ones", "Boxes narrower or lower than 0.01 pixels are left out.",
          told["large"], told["sure"])  # fmt: skip
    _rows(made, told, "class_nms", "Without doubles, class by class", "From the best score down, each box removes all "
          f"worse ones of its class that overlap it by more than {heads.nms_thresh:g}.", told["apart"],
          told["large"])  # fmt: skip
    _rows(made, told, "detections", "The detections", f"The {heads.detections_per_img} best of all classes together.",
          told["kept"], told["apart"])  # fmt: skip
    found = seen["found"]
    if "mask_logits" in seen:
        kept = len(found["boxes"])
        bins = _size(seen["mask_pooled"].shape[2:]) if "mask_pooled" in seen else "more"
        shape = _size(seen["mask_logits"].shape[2:])
        arrays = {name: seen[name] for name in ("mask_pooled", "mask_logits") if name in seen}
        from_maps = seen.get("mask_pooled_from")
        arrays |= {} if from_maps is None else {"levels": from_maps["levels"]}
        made("mask_logits", "Which pixels?", f"Each detection is pooled again, {bins} bins, and becomes a mask of "
             f"{shape} for each class; that of its own class counts.", kept, "masks", arrays=arrays)  # fmt: skip
        made("masks", "Masks laid into the picture", "Each mask is squashed to 0 to 1, stretched over its box and "
             "laid into a picture of its own.", kept, "masks", arrays={"masks": found["masks"]})  # fmt: skip
    made("found", "What the detector answers", f"Boxes in pixels of the picture as it was given, "
         f"{_size(seen['size'])}, with class and score.", boxes=found["boxes"], scores=found["scores"],
         labels=found["labels"], source=np.arange(len(found["boxes"])))  # fmt: skip


def _levels_text(pool, scales):
    """Return how proposals find their map."""
    strides = ", ".join(f"{1 / scale:g}" for scale in scales)
    if len(scales) == 1:
        return f"There is one map, with a cell for every {strides}x{strides} pixels: all proposals are pooled from it."
    return (f"Small proposals are pooled from fine maps, large ones from coarse ones (cells of {strides} pixels): "
            f"k = floor({pool.canonical_level} + log2(sqrt(area) / {pool.canonical_scale})).")  # fmt: skip


def _operator(pool):
    """Return a pooling operator in words."""
    kind = getattr(pool, "roi_op", None)
    if kind == "align":
        n = pool.sampling_ratio
        samples = f"{n}x{n}" if n > 0 else "as many as it has cells"
        return f"RoIAlign ({'aligned' if pool.aligned else 'not aligned'}, samples of a bin: {samples})"
    return "RoIPool" if kind == "pool" else type(pool).__name__


def _size(shape):
    return "x".join(map(str, shape))
