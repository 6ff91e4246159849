"""Training: `fit`, its files, and reading a trained model back."""

from tinyseg.training.loop import History, Interrupted, fit
from tinyseg.training.model_file import load_model, save_model
from tinyseg.training.options import DetectorOptions, Options
from tinyseg.training.run_folder import RunFolder
from tinyseg.training.start import start_from

__all__ = [
    "DetectorOptions",
    "History",
    "Interrupted",
    "Options",
    "RunFolder",
    "fit",
    "load_model",
    "save_model",
    "start_from",
]
