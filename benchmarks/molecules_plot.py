"""The comparison with RDKit as a picture: every difference with its interval, from `molecules.json` into an SVG."""

__all__ = ["plot"]

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
# Figure, words, unit, and whether more is better.
MEASURES = (
    ("bioactive_minima", "distinct low minima, 120 ligands", "minima", True),
    ("dft_minima", "distinct low minima, 60 molecules", "minima", True),
    ("bioactive_nearest", "nearest to the protein-bound shape", "Å", False),
    ("dft_cov_r_drugs_1.25", "COV-R at 1.25 Å", "points", True),
    ("dft_cov_r_0.5", "COV-R at 0.5 Å", "points", True),
    ("dft_cov_p_drugs_1.25", "COV-P at 1.25 Å", "points", True),
    ("dft_mat_r", "MAT-R", "Å", False),
    ("dft_mat_p", "MAT-P", "Å", False),
)
WAYS = (("difference", "as many conformers", "#4f46e5"), ("difference_equal_time", "as many CPU seconds", "#c2410c"))
WIDTH, LEFT, SPAN, ROW, TOP = 760, 270, 400, 46, 64


def plot() -> Path:
    """Write `results/molecules.svg` from the figures and return its path; better is to the right in every row."""
    figures = json.loads((RESULTS / "molecules.json").read_text(encoding="utf-8"))["figures"]
    rows = [_row(index, figures, *measure) for index, measure in enumerate(MEASURES)]
    height = TOP + ROW * len(MEASURES) + 16
    legend = "".join(
        f'<circle cx="{LEFT + 20 + 190 * place}" cy="42" r="4" fill="{colour}"/>'
        f'<text x="{LEFT + 30 + 190 * place}" y="46">{words}</text>'
        for place, (_, words, colour) in enumerate(WAYS)
    )
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="#1e293b"><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text x="16" y="22" font-size="14" font-weight="600">Conformers: ours minus ETKDGv3 + MMFF94s + clustering '
        f"(mean, 95 % over molecules)</text>"
        f'<text x="16" y="46" fill="#64748b">right of the line: ours is better</text>{legend}{"".join(rows)}</svg>\n'
    )
    path = RESULTS / "molecules.svg"
    path.write_text(text, encoding="utf-8")
    return path


def _row(index: int, figures: dict[str, list[float]], name: str, words: str, unit: str, more: bool) -> str:
    sign = 1 if more else -1
    parts = [[sign * value for value in figures[f"{name}_{way}"]] for way, _, _ in WAYS]
    most = max(abs(value) for part in parts for value in part) or 1.0
    y = TOP + ROW * index
    middle = LEFT + SPAN / 2

    def across(value: float) -> float:
        return middle + value / most * (SPAN / 2 - 10)

    marks = [
        f'<text x="16" y="{y + 22}">{words}</text>'
        f'<line x1="{middle}" x2="{middle}" y1="{y}" y2="{y + ROW}" stroke="#cbd5e1"/>'
    ]
    for place, ((_, _, colour), (mean, first, last)) in enumerate(zip(WAYS, parts, strict=True)):
        at = y + 14 + 14 * place
        marks.append(
            f'<line x1="{across(min(first, last)):.1f}" x2="{across(max(first, last)):.1f}" y1="{at}" y2="{at}" '
            f'stroke="{colour}" stroke-width="2"/><circle cx="{across(mean):.1f}" cy="{at}" r="4" fill="{colour}"/>'
            f'<text x="{LEFT + SPAN + 4}" y="{at + 4}" font-size="11" fill="{colour}">{mean * sign:+.2g} {unit}</text>'
        )
    return "".join(marks)
