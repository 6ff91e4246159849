"""What `tinyseg.explain.detector` found: stages as a table, as JSON, as pictures, as a page."""

import json
import textwrap
from pathlib import Path

import numpy as np

from tinyseg import draw, files
from tinyseg.explain.detectors.lost import lost_object
from tinyseg.explain.detectors.stages import RECALL_AT, recall_of
from tinyseg.explain.rois.trace import roi
from tinyseg.explain.text import ruled

_WIDTH = 72  # characters of a stage's sentence
_MOST_BOXES = 5000  # of a stage, whose numbers are written as JSON


class DetectorXRay:
    """A detector's run on one picture: what `tinyseg.explain.detector` returns. ``print`` shows it as a table.

    Parameters
    ----------
    model : GeneralizedRCNN
        The detector.
    picture : ndarray
        ``(C, H, W)`` as it was given.
    size : (int, int)
        Its height and width after resizing.
    truth : dict or None
        ``boxes``, ``labels``, and ``resized``, the boxes in pixels of the resized picture.
    stages : list of DetectorStage
        In the order of the run.
    class_names : tuple of str
        Names of class 0, 1, ...

    Attributes
    ----------
    stages : list of DetectorStage
        All stages; ``xray["nms"]`` is the one of that name.
    """

    def __init__(self, model, picture, size, truth, stages, class_names=()):
        self.model, self.picture, self.truth, self.stages = model, picture, truth, stages
        self.size = tuple(size)
        self.class_names, self._resized = class_names, None

    def __getitem__(self, name):
        """Return the stage of a name.

        Parameters
        ----------
        name : str
            ``"anchors"``, ``"proposals"``, ...

        Returns
        -------
        DetectorStage

        Raises
        ------
        KeyError
            If there is no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(
            f"{name!r} is no stage of this detector; expected one of {', '.join(s.name for s in self.stages)}"
        )

    def class_name(self, label):
        """Return the name of a class.

        Parameters
        ----------
        label : int
            Its number.

        Returns
        -------
        str
            ``"class 3"`` where it has no name.
        """
        named = 0 <= label < len(self.class_names) and self.class_names[label]
        return named or ("background" if label == 0 else f"class {label}")

    def recall(self, iou=0.5):
        """Return how many of the true objects each stage covers.

        Parameters
        ----------
        iou : float
            Overlap, above 0 and at most 1, from which on a box covers an object.

        Returns
        -------
        dict of str to float
            By the names of the stages with boxes, in order: the share of objects that some box covers; from
            ``"class_boxes"`` on, some box of the object's class. A box may cover several objects.

        Raises
        ------
        ValueError
            If there is no truth, or ``iou`` is out of range.
        """
        self._check_truth()
        if not 0 < iou <= 1:
            raise ValueError(f"iou is {iou!r}; expected above 0 and at most 1")
        if not len(self.truth["boxes"]):
            return {}
        with_boxes = [stage for stage in self.stages if stage.boxes is not None]
        return {stage.name: recall_of(stage, self.truth, (iou,))[iou] for stage in with_boxes}

    def lost(self, number, iou=0.5):
        """Return what became of a true object: whether it was found, or at which stage it was lost, and why.

        Parameters
        ----------
        number : int
            Of the object in the truth, from 0.
        iou : float
            Overlap, above 0 and at most 1, from which on a box covers it.

        Returns
        -------
        LostObject
            ``print`` shows a sentence.

        Raises
        ------
        ValueError
            If there is no truth, or a number is out of range.
        """
        self._check_truth()
        count = len(self.truth["boxes"])
        if not (isinstance(number, int | np.integer) and 0 <= number < count):
            raise ValueError(f"number is {number!r}; expected a whole number from 0 to {count - 1}")
        if not 0 < iou <= 1:
            raise ValueError(f"iou is {iou!r}; expected above 0 and at most 1")
        return lost_object(self, int(number), iou)

    def _check_truth(self):
        """Raise ValueError without truth."""
        if self.truth is None:
            raise ValueError("target was left out; expected the truth, to compare with")

    def objects(self):
        """Return what became of every true object: a list of LostObject, empty without truth."""
        return [self.lost(number) for number in range(0 if self.truth is None else len(self.truth["boxes"]))]

    def before(self, stage):
        """Return the stage whose boxes a stage was made of.

        Parameters
        ----------
        stage : DetectorStage
            One of those with boxes.

        Returns
        -------
        DetectorStage or None
            None for the anchors.
        """
        with_boxes = [each for each in self.stages if each.boxes is not None]
        return dict(zip(map(id, with_boxes), [None, *with_boxes], strict=False))[id(stage)]

    def pooled_from(self):
        """Return, for each proposal, the name of the map that it is pooled from; None where the model does not tell."""
        if not any(stage.name == "levels" for stage in self.stages):
            return None
        told = self["levels"].arrays
        return told["names"][told["levels"]]

    def resized(self):
        """Return the picture as the network sees it, without what was added at its borders: (H, W, 3) uint8."""
        if self._resized is None:
            padded = self["picture"].arrays["picture"]
            height, width = self.size
            self._resized = draw.to_rgb(draw.drawable(padded)[0][:, :height, :width], stretch=True)
        return self._resized

    def roi(self, number):
        """Trace how a proposal was pooled: every number between its box and its features, by `tinyseg.explain.roi`.

        Parameters
        ----------
        number : int
            Of the proposal, from 0: a row of ``xray["proposals"].boxes``.

        Returns
        -------
        RoITrace
            Whose ``output`` is the row of that number in ``xray["pooled"].arrays["pooled"]``, but for rounding where
            the network ran on other kernels than the naive ones.

        Raises
        ------
        ValueError
            If there is no such proposal, or the model pools by something else than RoIAlign or RoIPool.
        """
        boxes, pool = self["proposals"].boxes, self.model.roi_heads.box_roi_pool
        if not (isinstance(number, int | np.integer) and 0 <= number < len(boxes)):
            raise ValueError(f"number is {number!r}; expected a whole number from 0 to {len(boxes) - 1}")
        levels = self.pooled_from()
        if levels is None or not hasattr(pool, "roi_op"):
            raise ValueError(f"the model pools by {type(pool).__name__}; expected MultiScaleRoIPooling")
        told = self["levels"].arrays
        maps = next(stage for stage in reversed(self.stages) if stage.name in ("backbone", "pyramid"))
        align = {"sampling_ratio": pool.sampling_ratio, "aligned": pool.aligned} if pool.roi_op == "align" else {}
        return roi(
            maps.arrays[levels[number]], boxes[number], f"roi_{pool.roi_op}", output_size=pool.output_size,
            spatial_scale=float(told["scales"][told["levels"][number]]), **align,
        )  # fmt: skip

    # ---- pictures --------------------------------------------------------------------------------------------------

    def figure(self, stage=None):
        """Draw a stage, or a sheet of all of them.

        Parameters
        ----------
        stage : str, optional
            Its name.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("stage.png")`` writes it; a notebook shows it.

        Raises
        ------
        KeyError
            If there is no such stage.
        """
        from tinyseg.explain.detectors.figures import draw_sheet, draw_stage

        return draw_sheet(self) if stage is None else draw_stage(self, self[stage])

    def html(self):
        """Return a page with all stages in order.

        Returns
        -------
        str
            HTML that needs no other file: ``tinyseg.files.write_text("xray.html", xray.html())``, or `save`.
        """
        return self._drawn()[0]

    def _drawn(self):
        """Return the page, and PNG files of the sheet and of every stage by their names."""
        from tinyseg.explain.detectors.figures import draw_sheet, png, stage_png
        from tinyseg.explain.detectors.page import make_page

        sheet, pairs = png(draw_sheet(self)), [stage_png(self, stage) for stage in self.stages]
        names = [f"{number:02d}_{stage.name}.png" for number, stage in enumerate(self.stages, 1)]
        drawings = dict(zip(names, (whole for whole, _ in pairs), strict=True))
        return make_page(self, sheet, [cut for _, cut in pairs]), {"overview.png": sheet, **drawings}

    def save(self, path):
        """Write the page, or a folder with the page, a PNG file of each stage, and all numbers as JSON.

        Parameters
        ----------
        path : str or path-like
            A file that ends in ``.html``, or a folder, which is made. Files of these names are written over.

        Returns
        -------
        pathlib.Path
            The page.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        path = Path(path)
        page, drawings = self._drawn()
        if path.suffix.lower() in (".html", ".htm"):
            files.write_text(path, page)
            return path
        files.make_folder(path)
        for name, drawing in drawings.items():
            files.write_bytes(path / name, drawing)
        files.write_text(path / "stages.json", self.to_json())
        files.write_text(path / "index.html", page)
        return path / "index.html"

    # ---- text ------------------------------------------------------------------------------------------------------

    def to_json(self):
        """Return stages with boxes, scores and recall, and what became of each object, as the text of a JSON object.

        Of maps, pooled features and masks, and of the boxes of a stage with more than 5000, there are the shapes only.

        Returns
        -------
        str
        """
        truth = None
        if self.truth is not None:
            truth = {"boxes": self.truth["boxes"].tolist(), "labels": self.truth["labels"].tolist()}
        whole = {
            "model": type(self.model).__name__, "picture": list(self.picture.shape),
            "class_names": list(self.class_names), "truth": truth,
            "objects": [lost._asdict() for lost in self.objects()],
        }  # fmt: skip
        stages = ",\n".join(json.dumps(_as_dict(stage)) for stage in self.stages)
        return f'{json.dumps(whole)[:-1]}, "stages": [\n{stages}\n]}}\n'

    def __str__(self):
        has_recall = any(stage.recall for stage in self.stages)
        head = ["stage", "count", "", *(f"IoU {at:g}" for at in RECALL_AT if has_recall), "what it does"]
        rows = []
        for stage in self.stages:
            recall = [f"{stage.recall[at]:.2f}" if stage.recall else "" for at in RECALL_AT if has_recall]
            first, *more = textwrap.wrap(stage.text, _WIDTH)
            rows.append([stage.name, str(stage.count), stage.unit, *recall, first])
            rows += [[""] * (len(head) - 1) + [line] for line in more]
        lines = ruled([head, *rows], (0, 2, len(head) - 1))
        if has_recall:
            lines += ["", "IoU 0.5, 0.75: the share of true objects that some box overlaps by so much or more; from",
                      "class_boxes on, a box of the object's class.", "", *map(str, self.objects())]  # fmt: skip
        return "\n".join(lines)

    __repr__ = __str__


def _as_dict(stage):
    """Return a stage as plain values, its large arrays as shapes."""
    plain = {name: getattr(stage, name) for name in ("name", "title", "text", "count", "unit")}
    plain["recall"] = {str(at): value for at, value in stage.recall.items()}
    arrays = {name: getattr(stage, name) for name in ("boxes", "scores", "labels", "levels", "source")}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if stage.count <= _MOST_BOXES:
        plain |= {name: array.tolist() for name, array in arrays.items()}
    plain["shapes"] = {name: list(array.shape) for name, array in {**arrays, **stage.arrays}.items()}
    return plain
