"""The runs that were kept, as a list a notebook shows with pictures: from the page, a terminal or another notebook."""

__all__ = ["RunList", "runs"]

import base64
from dataclasses import dataclass

from studio.catalog import CATALOG
from studio.desk.desk import Desk
from studio.desk.store import Row
from studio.surfaces.web_html import clock, say
from studio.surfaces.web_runs_html import STATES, asked, picture

HEAD = "<tr><th></th><th>run</th><th>study</th><th>asked</th><th>state</th><th>worked</th></tr>"


@dataclass(frozen=True)
class RunList:
    """Runs, the newest first; `rows` has them as records, and `Panel.of(id)` shows one."""

    desk: Desk
    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        """Return a line for every run."""
        return "\n".join(f"{row.id[:8]}  {row.study}  {row.state}  {row.outcome}" for row in self.rows) or "no runs"

    def _repr_html_(self) -> str:
        """Return the table a notebook shows."""
        return f"<table>{HEAD}{''.join(self._line(row) for row in self.rows)}</table>"

    def _line(self, row: Row) -> str:
        data = picture(self.desk, row) if row.frame else b""
        image = f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" width="64" alt="">' if data else ""
        cells = (row.id[:8], row.study, asked(self.desk, row), STATES[row.state], clock(row.seconds))
        return f"<tr><td>{image}</td>{''.join(f'<td>{say(cell)}</td>' for cell in cells)}</tr>"


def runs(words: str = "", most: int = 20) -> RunList:
    """Return the newest runs whose study, knobs or outcome hold every one of the words."""
    desk = Desk(CATALOG)
    return RunList(desk, tuple(desk.store.search(words, most=most)))
