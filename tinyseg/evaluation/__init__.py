"""How good a segmentation is, and the prediction of pictures of any size."""

from tinyseg.evaluation.prediction import evaluate, evaluating, predict, predict_mask, to_mask
from tinyseg.evaluation.segmentation import SegmentationScores, confusion_counts, dice, iou, pixel_error
from tinyseg.evaluation.tiling import automatic_tile, receptive_field, tiles_along

__all__ = [
    "SegmentationScores",
    "automatic_tile",
    "confusion_counts",
    "dice",
    "evaluate",
    "evaluating",
    "iou",
    "pixel_error",
    "predict",
    "predict_mask",
    "receptive_field",
    "tiles_along",
    "to_mask",
]
