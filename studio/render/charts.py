"""Scenes into Plotly figures: curves, and points over the contours of a loss."""

__all__ = ["PALETTE", "curves_figure", "drawn_as", "points_figure"]

from typing import Any

import numpy as np
import plotly.graph_objects as go

from studio.scenes import Curves, Points, Series

# Okabe and Ito's palette, told apart by readers with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FONT = {"family": "system-ui, sans-serif", "size": 13}
SHAPES = ("circle", "diamond", "square", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot")


def curves_figure(scene: Curves) -> go.Figure:
    """Return lines over shared axes, told apart by colour and by dash, and dots by colour and by shape.

    A logarithmic axis shows what is above 0; a linear one of x begins at 0.
    """
    figure = go.Figure()
    for index, series in enumerate(scene.series):
        line = {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index % len(DASHES)], "width": 2}
        mark = {"size": 8, "symbol": SHAPES[index % len(SHAPES)]} if series.dots else None
        figure.add_scatter(x=series.x, y=series.y, name=series.name, mode=drawn_as(series), line=line, marker=mark)
    figure.update_xaxes(title=scene.x_label, rangemode="tozero")
    if scene.log_x:
        figure.update_xaxes(type="log", rangemode="normal", exponentformat="power")
    figure.update_yaxes(title=scene.y_label, type="log" if scene.log_y else "linear", exponentformat="power")
    return _calm(figure, scene.title, legend=len(scene.series) > 1)


def drawn_as(series: Series) -> str:
    """Return how plotly calls what a series is drawn as: a line, or markers where it is dots or a single point."""
    return "markers" if series.dots or len(series.x) < 2 else "lines"


def points_figure(scene: Points) -> go.Figure:
    """Return the points over the contours of the loss, with the known optimum set behind them."""
    levels = np.log10(scene.heights - scene.heights.min() + 1e-3)
    figure = go.Figure()
    figure.add_contour(
        x=scene.x, y=scene.y, z=levels, colorscale="Blues", showscale=False, ncontours=16,
        line={"width": 0.5}, hoverinfo="skip",
    )  # fmt: skip
    green = {"color": PALETTE[2], "size": 5}
    figure.add_scatter(
        x=scene.optimum[:, 0], y=scene.optimum[:, 1], mode="markers", name="optimum set", marker=green,
        hoverinfo="skip",
    )  # fmt: skip
    orange = {"color": PALETTE[1], "size": 10, "line": {"color": "white", "width": 1.5}}
    figure.add_scatter(
        x=scene.positions[:, 0], y=scene.positions[:, 1], mode="markers", name="points", marker=orange,
        text=[f"loss {value:.3g}" for value in scene.values],
        hovertemplate="(%{x:.3f}, %{y:.3f})<br>%{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(range=[scene.x[0], scene.x[-1]], constrain="domain")
    figure.update_yaxes(range=[scene.y[0], scene.y[-1]], scaleanchor="x", constrain="domain")
    return _calm(figure, "", legend=True)


def _calm(figure: go.Figure, title: str, legend: bool) -> go.Figure:
    """Return the figure with few lines and small margins; the legend stands under a titled chart, else above it."""
    below = bool(title) and legend
    lines: Any = figure.data
    rows = -(-len(lines) // 2)
    place = {"yref": "container", "yanchor": "bottom", "y": 0.0} if below else {"yanchor": "bottom", "y": 1.0}
    figure.update_layout(
        template="plotly_white", title=title or None, font=FONT, showlegend=legend, uirevision="keep",
        margin={"l": 56, "r": 16, "t": 44 if title else 16, "b": 54 + 18 * rows if below else 48}, autosize=True,
        legend={"orientation": "h", "x": 0.0, **place},
    )  # fmt: skip
    return figure
