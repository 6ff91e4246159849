"""Pictures of results: masks and detections laid over pictures, probabilities as colours, panels side by side.

Drawings are arrays, (H, W, 3) uint8; `save` writes them. No drawing touches matplotlib's global state: it is loaded
for a colour map, when one is drawn, and never opens a window.
"""

from tinyseg.draw.objects import detections, instances, mask_window, truth_and_prediction
from tinyseg.draw.pictures import ERROR_COLOURS, drawable, errors, overlay, probability_map, save, to_rgb
from tinyseg.draw.sheets import panels

__all__ = [
    "ERROR_COLOURS",
    "detections",
    "drawable",
    "errors",
    "instances",
    "mask_window",
    "overlay",
    "panels",
    "probability_map",
    "save",
    "to_rgb",
    "truth_and_prediction",
]
