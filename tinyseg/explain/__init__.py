"""What happens inside: every value of a RoI operator, of a detector's run, of a network, of a kernel.

Results are plain arrays and named tuples; ``print`` shows them as text, ``figure()`` draws them, and ``to_json()``
keeps them. `maps` and `roofline` give a figure at once. Nothing here changes what is computed, or the network.

A box under the RoI operators
    `roi` traces one operator from the box to its output, `roi_compare` several side by side; `roi_drag` moves the box
    by parts of a pixel, `roi_gradients` shows where gradients flow, `conventions` what other libraries make of the
    box, and `roi_lab` lets you drag it in a notebook.
A detector
    `detector` shows every stage of its run on a picture, and where it lost an object.
A network
    `plan` says which kernels it runs, by which algorithm, and how near each comes to the machine's best, and `roofline`
    draws that; `graph` draws its operators. `receptive_field` finds what a cell of a map sees, `feature_maps` what each
    layer makes of a picture.
Gradients
    `check_gradients` compares them with differences, and tells a kink from a mistake.
A CUDA kernel
    `cuda_trace` shows what it does with memory, thread by thread, without a GPU.
Small maps
    `maps` draws them side by side, with the values in their cells.
"""

from tinyseg.explain.cuda.report import CudaAccess, CudaTrace
from tinyseg.explain.cuda.rows import CudaTraceProblem, CudaTraceRow
from tinyseg.explain.cuda.trace import cuda_trace
from tinyseg.explain.detectors.detector import detector
from tinyseg.explain.detectors.lost import LostObject
from tinyseg.explain.detectors.stages import DetectorStage
from tinyseg.explain.detectors.xray import DetectorXRay
from tinyseg.explain.gradients.check import check_gradients
from tinyseg.explain.gradients.report import GradientReport, GradientRow
from tinyseg.explain.maps import Mark, maps
from tinyseg.explain.networks.feature_maps import FeatureMapRow, FeatureMaps, feature_maps
from tinyseg.explain.networks.graph import Graph, GraphNode, graph
from tinyseg.explain.networks.graph_blocks import GraphBlock
from tinyseg.explain.networks.plan import plan
from tinyseg.explain.networks.plan_table import Plan, PlanRow
from tinyseg.explain.networks.receptive_field import ReceptiveField, receptive_field
from tinyseg.explain.networks.roofline import Measured, roofline
from tinyseg.explain.rois.compare import RoIComparison, roi_compare
from tinyseg.explain.rois.conventions import Convention, Conventions, conventions
from tinyseg.explain.rois.drag import RoIDrag, RoIJump, roi_drag
from tinyseg.explain.rois.gradients import RoIGradient, RoIGradients, roi_gradients
from tinyseg.explain.rois.lab import RoILab, RoILabPart, RoILabResult, roi_lab
from tinyseg.explain.rois.orders import RoIOrders
from tinyseg.explain.rois.report import RoITrace
from tinyseg.explain.rois.trace import roi
from tinyseg.explain.rois.values import RoICell, RoISample

__all__ = [
    "Convention",
    "Conventions",
    "CudaAccess",
    "CudaTrace",
    "CudaTraceProblem",
    "CudaTraceRow",
    "DetectorStage",
    "DetectorXRay",
    "FeatureMapRow",
    "FeatureMaps",
    "GradientReport",
    "GradientRow",
    "Graph",
    "GraphBlock",
    "GraphNode",
    "LostObject",
    "Mark",
    "Measured",
    "Plan",
    "PlanRow",
    "ReceptiveField",
    "RoICell",
    "RoIComparison",
    "RoIDrag",
    "RoIGradient",
    "RoIGradients",
    "RoIJump",
    "RoILab",
    "RoILabPart",
    "RoILabResult",
    "RoIOrders",
    "RoISample",
    "RoITrace",
    "check_gradients",
    "conventions",
    "cuda_trace",
    "detector",
    "feature_maps",
    "graph",
    "maps",
    "plan",
    "receptive_field",
    "roi",
    "roi_compare",
    "roi_drag",
    "roi_gradients",
    "roi_lab",
    "roofline",
]
