"""Which hardware can serve a model in time, and what it costs and draws (docs/planner.md). Pure: no IO, no clock.

`requirement` says what a target asks of any hardware, `feasible` which devices and how many of them can do it, and
`deployment_chart` is the data of the paper's deployment chart [P6 Figure 4].
"""

from moe_cap.planner.chart import ChartLine, ChartPoint, DeploymentChart, deployment_chart, published_bytes
from moe_cap.planner.demand import Memory, Requirement, memory, requirement, tpot_for_throughput
from moe_cap.planner.options import Assumptions, Fit, Limit, Option, feasible

__all__ = [
    "Assumptions",
    "ChartLine",
    "ChartPoint",
    "DeploymentChart",
    "Fit",
    "Limit",
    "Memory",
    "Option",
    "Requirement",
    "deployment_chart",
    "feasible",
    "memory",
    "published_bytes",
    "requirement",
    "tpot_for_throughput",
]
