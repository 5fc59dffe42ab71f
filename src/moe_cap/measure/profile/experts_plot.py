"""How routing spreads over experts: distinct ones against the batch (the paper's Figure 5), and tokens of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from plotly.graph_objects import Figure, Heatmap, Scatter

from moe_cap.expert_trace import Activated, ExpertTrace
from moe_cap.measure.profile.page import Panel, Stroke, draw_page, lay_out, logarithmic, stroke
from moe_cap.routing import expert_histogram, uniform_activated_experts

EXPECTED = Stroke("#555555", "dot")


@dataclass(frozen=True, slots=True)
class Curve:
    """Distinct experts per layer by the number of sequences that are decoded together."""

    name: str
    by_batch_size: Mapping[int, float]
    stroke: Stroke


def draw_distinct_experts(curves: Sequence[Curve], num_experts: int, top_k: int | None) -> Panel:
    """One line per curve, and the expectation under equal chances dotted; that is left out where `top_k` is None."""
    sizes = sorted({size for curve in curves for size in curve.by_batch_size})
    figure = Figure()
    for curve in curves:
        traced = sorted(curve.by_batch_size.items())
        line = {"color": curve.stroke.colour, "dash": curve.stroke.dash}
        x, y = [size for size, _ in traced], [experts for _, experts in traced]
        figure.add_trace(Scatter(x=x, y=y, name=curve.name, mode="lines+markers", line=line))
    if top_k is not None:
        smooth = np.unique(np.geomspace(sizes[0], sizes[-1], 60).round().astype(int)).tolist()
        expected = [uniform_activated_experts(num_experts, top_k, size) for size in smooth]
        line = {"color": EXPECTED.colour, "dash": EXPECTED.dash}
        figure.add_trace(Scatter(x=smooth, y=expected, name="uniform routing", mode="lines", line=line))
    figure.update_xaxes(title="sequences decoded together", **logarithmic(sizes))
    figure.update_yaxes(range=[0, num_experts * 1.05])
    note = "Taken from the recorded routing, offline."
    dotted = "" if top_k is None else f" Dotted: expected if all experts had equal chances, {top_k} to a token."
    return Panel(f"Distinct of {num_experts} experts per layer and decode step", lay_out(figure), note + dotted)


def draw_expert_tokens(tokens: Sequence[Sequence[int]], where: str) -> Panel:
    """The heat map of token counts [layers][experts]; `where` says of which load."""
    counts = np.asarray(tokens)
    hover = "layer %{y}, expert %{x}: %{z:,} tokens<extra></extra>"
    bar = {"title": {"text": "tokens"}, "thickness": 14}
    figure = Figure(Heatmap(z=counts, colorscale="Viridis", zmin=0, colorbar=bar, hovertemplate=hover))
    figure.update_xaxes(title="expert", **_whole(counts.shape[1]))
    figure.update_yaxes(title="MoE layer", autorange="reversed", **_whole(counts.shape[0]))
    sums = counts.sum(axis=1)
    routed = sums > 0
    note = where
    if routed.any():
        busiest = counts.max(axis=1)[routed] * counts.shape[1] / sums[routed]
        note += f" The busiest expert of a layer gets up to {busiest.max():.1f} times an even share."
    return Panel("Tokens per expert and layer", lay_out(figure), note)


def _whole(number: int) -> dict[str, object]:
    """Labels at whole numbers, at most a dozen of them."""
    return {"tick0": 0, "dtick": max(1, -(-number // 12))}


def draw_trace(trace: ExpertTrace, found: Sequence[Activated], title: str) -> str:
    """The page of one stored trace; batches that were drawn from its tokens have a line of their own."""
    looks = {False: ("as traced", stroke(0)), True: ("drawn from tokens of different steps", stroke(1))}
    curves = [
        Curve(name, {one.batch_size: one.mean for one in found if one.drawn == drawn}, look)
        for drawn, (name, look) in looks.items()
    ]
    shown = [curve for curve in curves if curve.by_batch_size]
    tokens = expert_histogram(trace.experts, trace.num_experts).tolist()
    panels = [
        draw_distinct_experts(shown, trace.num_experts, trace.experts.shape[-1]),
        draw_expert_tokens(tokens, f"All {len(trace.positions)} sequences, prompts included."),
    ]
    return draw_page(title, [(curve.name, curve.stroke) for curve in shown], panels)
