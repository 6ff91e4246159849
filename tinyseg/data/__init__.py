"""Pictures and their truth: made up, from files and folders, augmented, in batches.

A data set is anything with a length that gives a `Sample` for each index: `SyntheticCells`, `SyntheticShapes`,
`FolderDataset`, `CocoDataset`, `Subset`, or one's own.
"""

from tinyseg.data import augment, augment_objects
from tinyseg.data.augment import default_augmentation
from tinyseg.data.augment_objects import detection_augmentation
from tinyseg.data.batches import Batches, Prefetch
from tinyseg.data.choose import select, split
from tinyseg.data.coco import CocoDataset
from tinyseg.data.detection_batches import DetectionBatches, detection_target
from tinyseg.data.folder import FolderDataset, Subset, find_folders, find_pictures
from tinyseg.data.formats import Stored, count_pages, read_stored
from tinyseg.data.masks import check_same_size, read_instances, read_mask, write_mask
from tinyseg.data.normalise import check_normalisation, normalise
from tinyseg.data.pictures import read_picture, to_channels, write_picture
from tinyseg.data.run_lengths import RunLengthMasks
from tinyseg.data.sample import Sample, boxes_of, boxes_of_masks
from tinyseg.data.synthetic import SyntheticCells, SyntheticShapes, cells, shapes

__all__ = [
    "Batches",
    "CocoDataset",
    "DetectionBatches",
    "FolderDataset",
    "Prefetch",
    "RunLengthMasks",
    "Sample",
    "Stored",
    "Subset",
    "SyntheticCells",
    "SyntheticShapes",
    "augment",
    "augment_objects",
    "boxes_of",
    "boxes_of_masks",
    "cells",
    "check_normalisation",
    "check_same_size",
    "count_pages",
    "default_augmentation",
    "detection_augmentation",
    "detection_target",
    "find_folders",
    "find_pictures",
    "normalise",
    "read_instances",
    "read_mask",
    "read_picture",
    "read_stored",
    "select",
    "shapes",
    "split",
    "to_channels",
    "write_mask",
    "write_picture",
]
