"""``tinyseg predict`` with a detector: the objects in each picture."""

from collections import Counter

DETECTIONS = "detections.json"


class ObjectPredictor:
    """Writes an overlay and, where there are masks, a picture of numbered objects for each picture; and one JSON file.

    Masks are laid into the picture one at a time: of a hundred of them, in a large photograph, one is in memory.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or MaskRCNN
        The network.
    info : dict
        As `tinyseg.training.load_model` gives it.
    args : argparse.Namespace
        The command's options.

    Raises
    ------
    ImportError
        If there will be masks, but no pycocotools to write them as run-lengths.
    """

    def __init__(self, model, info, args):
        from tinyseg.evaluation.coco_results import mask_tools

        if args.tile is not None:
            raise ValueError("--tile is for U-Nets; a detector looks at the whole picture at once")
        self.model, self.normalisation = model, info["normalisation"]
        self.class_names, self.category_ids = tuple(info["class_names"]), info["category_ids"]
        self.threshold = info["threshold"] if args.threshold is None else args.threshold
        self.channels = len(model.transform.image_mean)
        heads = model.roi_heads
        heads.score_thresh = 0.5 if args.score is None else args.score
        if args.max_objects is not None:
            heads.detections_per_img = args.max_objects
        self.endings = {"overlay": "_overlay.png"}
        self.written = "overlays"
        if heads.has_mask():
            mask_tools()
            self.endings["instances"] = "_instances.png"
            self.written = "overlays and numbered objects"
        self.written += " are in {}, all objects in " + DETECTIONS
        self.run_files = (DETECTIONS,)
        self._entries: list[dict] = []

    def predict(self, x):
        """Return what is in one picture, as arrays, the surest object last."""
        from tinyseg import no_grad
        from tinyseg.data.normalise import normalise
        from tinyseg.evaluation import evaluating

        with evaluating(self.model), no_grad():
            (found,) = self.model.detect([normalise(x, self.normalisation)])
        return {name: value.to("cpu").numpy()[::-1] for name, value in found.items()}

    def write(self, outputs, picture, found, source):
        """Write the files of one picture; return in words what was found, and the file to look at."""
        from tinyseg import draw

        if "masks" in found:
            found["masks"] = _Masks(found["masks"], found["boxes"], picture.shape[1:], self.threshold)
        entries = self._described(found, source)
        if "masks" in found:
            _number(outputs["instances"], found["masks"], picture.shape[1:], entries)
        shown, dim = draw.drawable(picture)
        drawn = draw.detections(shown, **found, class_names=self.class_names, stretch=dim)
        draw.save(outputs["overlay"], drawn)
        self._entries += entries[::-1]
        return _in_words(entry["category"] for entry in entries), outputs["overlay"]

    def _described(self, found, source):
        """Return the objects of one picture as entries of COCO's results format, without masks."""
        from tinyseg.draw.labels import label_texts
        from tinyseg.evaluation.coco_results import to_results

        without = {name: value for name, value in found.items() if name != "masks"}
        entries = to_results(without, source["image_id"], self.category_ids)
        names = label_texts(found["labels"], None, self.class_names)
        for number, (entry, name) in enumerate(zip(entries, names, strict=True), 1):
            entry |= {**source, "category": name, "object": number}
        return entries

    def finish(self, folder):
        """Write the JSON file of all pictures."""
        from tinyseg.evaluation.coco_results import write_results

        write_results(folder / DETECTIONS, self._entries)


class _Masks:
    """Masks predicted over their boxes; each is laid into the picture when it is asked for.

    Parameters
    ----------
    small : ndarray
        (K, 1, M, M) probabilities.
    boxes : ndarray
        (K, 4) in picture pixels.
    size : (int, int)
        Of the picture.
    threshold : float
        Probability from which a pixel belongs to an object.
    """

    def __init__(self, small, boxes, size, threshold):
        self.small, self.boxes, self.size = small, boxes, size
        self.threshold = small.dtype.type(threshold)

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, i):
        """Return first row, first column and the part of mask ``i`` that is not empty."""
        from tinyseg import draw, ops

        one = slice(int(i), int(i) + 1)
        mask = ops.paste_masks(self.small[one].copy(), self.boxes[one].copy(), self.size)
        return draw.mask_window(mask[0, 0] >= self.threshold, self.size)


def _number(path, masks, size, entries):
    """Write the picture of numbered objects, and add each mask's run-lengths to its entry."""
    import numpy as np

    from tinyseg.data.pictures import save
    from tinyseg.evaluation.coco_results import run_lengths

    numbers = np.zeros(size, np.uint16)
    for i, entry in enumerate(entries):
        row, column, part = masks[i]
        numbers[row : row + part.shape[0], column : column + part.shape[1]][part] = entry["object"]
        whole = np.zeros(size, bool)
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        entry["segmentation"] = run_lengths(whole)
    save(path, numbers)


def _in_words(names):
    """Return how many objects of which class there are."""
    counts = Counter(names)
    total = sum(counts.values())
    if not total:
        return "no objects"
    if set(counts) == {"object"}:  # the name that label pictures give to their one class
        return f"{total} object{'s' if total > 1 else ''}"
    parts = ", ".join(f"{count} {name}" for name, count in counts.most_common(5))
    more = ", ..." if len(counts) > 5 else ""
    return f"{total} object{'s' if total > 1 else ''} ({parts}{more})"
