"""What happens inside: which kernels a network runs, by which algorithm, and how near each comes to the machine's best.

Nothing here changes what is computed, or the network that is looked at.
"""

from tinyseg.explain.plan import plan
from tinyseg.explain.plan_table import Plan, PlanRow

__all__ = ["Plan", "PlanRow", "plan"]
