"""Training of a detector: whole pictures with their objects, the sum of named losses, COCO's average precision."""

import numpy as np

from tinyseg.data import DetectionBatches, detection_augmentation
from tinyseg.evaluation import CocoScores, evaluate_detector
from tinyseg.training.data_source import Source, names
from tinyseg.training.options import DetectorOptions
from tinyseg.training.task import Score, Task

#: What the model calls its losses, and what they are called on the screen.
PARTS = {
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_objectness": "object",
    "loss_rpn_box_reg": "proposal",
}

BOX_SCORES = (
    Score("box_ap", "box AP", "#1f5fa8", "--"),
    Score("box_ap50", "box AP50", "#1a7f4b", "--"),
    Score("box_ap75", "box AP75", "#b5651d", "--"),
)
MASK_SCORES = (
    Score("mask_ap", "mask AP", "#1f5fa8"),
    Score("mask_ap50", "mask AP50", "#1a7f4b"),
    Score("mask_ap75", "mask AP75", "#b5651d"),
)

#: Of the random choices in a step; the numbers before belong to `tinyseg.data.DetectionBatches`.
_CHOICES = 11


class DetectionTask(Task):
    """A Faster R-CNN or Mask R-CNN in training; see `Task`.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or MaskRCNN
        Made by a function that leaves its ``config``.
    train, val : data set
        Pictures with objects.
    options : DetectorOptions
        The run's.

    Raises
    ------
    ValueError
        If the data do not fit the model.
    ImportError
        If there are validation pictures, but no pycocotools to score them.
    """

    options_class = DetectorOptions

    def __init__(self, model, train, val, options):
        super().__init__(model, train, val, options)
        self.masks = model.config["kind"] == "maskrcnn"
        self.scores = (*MASK_SCORES, *BOX_SCORES) if self.masks else BOX_SCORES
        self.best = self.scores[0].name
        self.parts = {name: label for name, label in PARTS.items() if self.masks or name != "loss_mask"}
        self._check("training", train)
        if self.val is not None:
            self._check("validation", self.val)
            CocoScores()  # without pycocotools this is an error: now, not after the first epoch
        batches = DetectionBatches(
            train,
            options.batch_size,
            seed=options.seed,
            augment=detection_augmentation(options.augment),
            normalisation=options.normalisation,
            masks=self.masks,
        )
        self.source = Source(batches, next(model.parameters()).device)  # the truth is matched with anchors on the host
        self._generator = model.generator

    def _check(self, what, dataset):
        """Check the first picture of a data set, and the classes, against the model."""
        if len(dataset) == 0:
            raise ValueError(f"the {what} set is empty; expected at least one picture")
        sample = dataset[0]
        if sample.boxes is None or sample.classes is None:
            raise ValueError(f"{what} picture {sample.name} has no objects, not even none: expected boxes and classes")
        if self.masks and sample.instance_masks is None:
            raise ValueError(f"{what} picture {sample.name} has boxes but no masks; a Mask R-CNN learns from masks")
        known = getattr(dataset, "class_names", None) or sample.class_names
        most = max(len(known) - 1, int(sample.classes.max(initial=0)))
        if most >= self.model.num_classes:
            raise ValueError(
                f"the {what} pictures have {most} classes of objects; the model has {self.model.num_classes - 1} "
                "(num_classes counts the background too)"
            )

    def losses(self, batch, step):
        """Return the model's losses; its random choices depend on the seed and the step."""
        pictures, targets = batch
        self.model.generator = np.random.default_rng([self.options.seed, _CHOICES, step])
        try:
            losses = self.model(pictures, targets)
        except ValueError as error:
            known = names(self.train)
            batch_names = ", ".join(known[i] for i in self.source.batches.indices(step))
            raise ValueError(f"{error} (the pictures of this step, from 0: {batch_names})") from None
        return {name: losses[name] for name in self.parts}

    def validate(self, before):
        """Return average precision over the validation pictures."""
        if self.val is None:
            return dict.fromkeys(score.name for score in self.scores)
        scores = evaluate_detector(
            self.model, self.val, normalisation=self.options.normalisation, before_picture=before
        )
        summary = scores.summary()
        return {score.name: _score(summary, score.name) for score in self.scores}

    def close(self):
        """Stop making batches, and give the model its own generator back."""
        super().close()
        self.model.generator = self._generator

    def model_settings(self):
        """Return what the model is built from."""
        return dict(self.model.config)

    def arrays(self, sample):
        """Return picture, boxes, classes and masks."""
        masks = sample.instances
        if masks is None and self.masks:
            masks = sample.instance_masks
        return sample.picture, sample.boxes, sample.classes, masks

    def about(self):
        """Return normalisation, names of pictures, and what is known of the classes."""
        about = super().about()
        class_names = getattr(self.train, "class_names", None) or self.train[0].class_names
        category_ids = getattr(self.train, "category_ids", ())
        if len(class_names) == self.model.num_classes:
            about["class_names"] = list(class_names)
        if len(category_ids) == self.model.num_classes - 1:
            about["category_ids"] = [int(number) for number in category_ids]
        return about


def _score(summary, name):
    """Return a score of `tinyseg.evaluation.CocoScores.summary`; None where no object was there to be found."""
    kind, _, threshold = name.partition("_ap")
    return summary.get(kind, {}).get(f"AP{threshold}")
