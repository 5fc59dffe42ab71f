"""Where tokens went, drawn: distinct experts against the batch (the paper's Figure 5), and the heat map of a load."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.graph_objects import Figure, Heatmap, Scatter
from plotly.subplots import make_subplots

from moe_cap.expert_trace import Activated, ExpertTrace
from moe_cap.routing import expert_histogram

TITLES = ("distinct experts per layer", "tokens per expert and layer")


def curve(sizes: Sequence[int], experts: Sequence[float], name: str) -> Scatter:
    """Mean distinct experts per layer at each batch size."""
    return Scatter(x=list(sizes), y=list(experts), name=name, mode="lines+markers")


def expectation(sizes: Sequence[int], experts: Sequence[float]) -> Scatter:
    """What uniform routing would be expected to use."""
    return Scatter(
        x=list(sizes), y=list(experts), name="uniform", mode="lines", line={"dash": "dot", "color": "#6b6b6b"}
    )


def heat_map(tokens: Sequence[Sequence[int]]) -> Heatmap:
    """Tokens [layers][experts]."""
    return Heatmap(z=[list(map(int, layer)) for layer in tokens], colorscale="Viridis", colorbar={"title": "tokens"})


def draw_trace(trace: ExpertTrace, found: Sequence[Activated]) -> Figure:
    """Both, of one stored trace."""
    sizes = [one.batch_size for one in found]
    figure = make_subplots(rows=1, cols=2, subplot_titles=TITLES)
    figure.add_trace(curve(sizes, [one.mean for one in found], "traced"), row=1, col=1)
    figure.add_trace(expectation(sizes, [trace.uniform(size) for size in sizes]), row=1, col=1)
    figure.add_trace(heat_map(expert_histogram(trace.experts, trace.num_experts).tolist()), row=1, col=2)
    figure.update_xaxes(title="batch size", type="log", tickvals=sizes, row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="expert", row=1, col=2)
    figure.update_yaxes(title="MoE layer", autorange="reversed", row=1, col=2)
    figure.update_layout(template="plotly_white", height=480, legend={"orientation": "h", "y": -0.25})
    return figure
