"""The figure of the pruning benchmark: accuracy against multiply-accumulates, before and after tuning."""

__all__ = ["plotted"]

import json
from html import escape
from pathlib import Path

from studio.render.charts import PALETTE

WIDE, TALL, LEFT, TOP, GAP = 300, 220, 52, 40, 26
SHOWN = ("imitation_refit", "fully_corrective", "line_search", "magnitude", "taylor", "batchnorm", "torch_pruning")
COLOURS = (*PALETTE[:6], "#555555")


def plotted(path: Path) -> None:
    """Write the figure of a record beside it as SVG; nothing where accuracy was not measured yet."""
    tasks = json.loads(path.read_text())["figures"].get("accuracy_against_macs")
    if tasks:
        path.with_suffix(".svg").write_text(_figure(tasks))


def _figure(tasks: dict) -> str:
    rows = [_panel(task, found, index) for index, (task, found) in enumerate(tasks.items())]
    width = len(tasks) * (WIDE + LEFT + GAP)
    legend = "".join(
        f'<g transform="translate({LEFT + (index % 4) * 200},{TOP + TALL + 56 + index // 4 * 20})">'
        f'<path d="M0-4h22" stroke="{colour}" stroke-width="2"/><text x="28">{escape(arm.replace("_", " "))}</text></g>'
        for index, (arm, colour) in enumerate(zip(SHOWN, COLOURS, strict=True))
    )
    note = (
        f'<text x="{LEFT}" y="{TOP + TALL + 106}">Solid: after tuning; dotted: before. Bars: standard deviation.</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + TALL + 120}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(rows)}{legend}{note}</svg>\n"
    )


def _panel(task: str, found: dict, column: int) -> str:
    shares = [share for share in found if share.endswith("%")]
    values = [cell[when][0] for share in shares for cell in found[share].values() if "after" in cell
              for when in ("before", "after")]  # fmt: skip
    low, high = 0.0, max([found["full"][0], *values]) * 1.05

    def at(share: float, right: float) -> tuple[float, float]:
        return (100 - share) / 80 * WIDE, TALL - (right - low) / (high - low) * TALL

    lines = []
    for arm, colour in zip(SHOWN, COLOURS, strict=True):
        for when, dash in (("before", ' stroke-dasharray="2 3"'), ("after", "")):
            cells = [(int(share[:-1]), *found[share][arm][when]) for share in shares if arm in found[share]]
            points = [at(100, found["full"][0]), *(at(share, mean) for share, mean, _ in cells)]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
            if when == "after":
                lines += [_bar(at(share, mean), at(share, mean + spread)[1], colour) for share, mean, spread in cells]
    ticks = "".join(
        f'<text x="{at(share, 0)[0]:.0f}" y="{TALL + 16}" text-anchor="middle">{share} %</text>'
        for share in (100, 70, 50, 30, 20)
    )
    sides = "".join(
        f'<path d="M0 {at(100, part * high)[1]:.1f}h{WIDE}" stroke="#e2e6ec"/>'
        f'<text x="-6" y="{at(100, part * high)[1] + 4:.1f}" text-anchor="end">{100 * part * high:.0f}</text>'
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<g transform="translate({LEFT + column * (WIDE + LEFT + GAP)},{TOP})"><text y="-14" font-weight="600">'
        f"{escape(task.replace('_', ' '))}: right, % against MACs kept</text>{sides}{''.join(lines)}{ticks}</g>"
    )


def _bar(point: tuple[float, float], top: float, colour: str) -> str:
    x, y = point
    return f'<path d="M{x:.1f} {top:.1f}V{2 * y - top:.1f}" stroke="{colour}" stroke-width="1"/>'
