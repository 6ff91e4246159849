"""What happens inside: which kernels a network runs, by which algorithm, and how near each comes to the machine's best.

And what a CUDA kernel does with memory, thread by thread; small maps drawn with the values in their cells; what RoI
operators make of a box that moves, and what other libraries make of the same box. And every stage of a detector's run
on a picture, with where it lost an object. Nothing here changes what is computed, or the network that is looked at.
"""

from tinyseg.explain.conventions import Convention, Conventions, conventions
from tinyseg.explain.cuda_report import CudaAccess, CudaTrace
from tinyseg.explain.cuda_rows import CudaTraceProblem, CudaTraceRow
from tinyseg.explain.cuda_trace import cuda_trace
from tinyseg.explain.detector import detector
from tinyseg.explain.detector_lost import LostObject
from tinyseg.explain.detector_stages import DetectorStage
from tinyseg.explain.detector_xray import DetectorXRay
from tinyseg.explain.feature_maps import FeatureMapRow, FeatureMaps, feature_maps
from tinyseg.explain.gradient_check import check_gradients
from tinyseg.explain.gradient_report import GradientReport, GradientRow
from tinyseg.explain.graph import Graph, GraphNode, graph
from tinyseg.explain.graph_blocks import GraphBlock
from tinyseg.explain.maps import Mark, maps
from tinyseg.explain.plan import plan
from tinyseg.explain.plan_table import Plan, PlanRow
from tinyseg.explain.receptive_field import ReceptiveField, receptive_field
from tinyseg.explain.roi_compare import RoIComparison, roi_compare
from tinyseg.explain.roi_drag import RoIDrag, RoIJump, roi_drag
from tinyseg.explain.roi_gradients import RoIGradient, RoIGradients, roi_gradients
from tinyseg.explain.roi_lab import RoILab, RoILabPart, RoILabResult, roi_lab
from tinyseg.explain.roi_orders import RoIOrders
from tinyseg.explain.roi_report import RoITrace
from tinyseg.explain.roi_trace import roi
from tinyseg.explain.roi_values import RoICell, RoISample
from tinyseg.explain.roofline import Measured, roofline

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
