"""How good a segmentation is, and the prediction of pictures of any size."""

from tinyseg.evaluation.coco import CocoScores
from tinyseg.evaluation.coco_results import read_results, to_results, write_results
from tinyseg.evaluation.detection import evaluate_detector, evaluate_results
from tinyseg.evaluation.prediction import evaluate, evaluating, predict, predict_mask, to_mask
from tinyseg.evaluation.segmentation import SegmentationScores, confusion_counts, dice, iou, pixel_error
from tinyseg.evaluation.tiling import automatic_tile, receptive_field, tiles_along

__all__ = [
    "CocoScores",
    "evaluate_detector",
    "evaluate_results",
    "read_results",
    "to_results",
    "write_results",
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
