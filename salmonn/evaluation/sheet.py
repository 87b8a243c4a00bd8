"""A page of figures: each drawing with its numbers beneath, one static file without scripts and network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn.evaluation.figures import Figure

STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;color:#222;background:#fff}"
    "body{margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "svg{max-width:100%;height:auto}.wide{overflow-x:auto}table{border-collapse:collapse}"
    "th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e3e6ea;white-space:nowrap}"
    "th.name,td.name{text-align:left}"
)


def figures_page(figures: Sequence[Figure]) -> str:
    """Return the page."""
    title = figures[0].title if figures else "Figures"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"{''.join(section(figure) for figure in figures)}</body></html>\n"
    )


def section(figure: Figure) -> str:
    """Return one figure: what it is of, its drawing, its table."""
    heads = [f"{point.x:g}" for point in figure.points]
    head = "".join(f'<th class="name" scope="col">{name}</th>' for name in ("score", "task", "set"))
    head += "".join(f'<th scope="col">{escape(x)}</th>' for x in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="name">{escape(text)}</td>' for text in (name, task, place))
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, task, place, cells in figure.rows()
    )
    models = ", ".join(dict.fromkeys(point.model for point in figure.points))
    return (
        f"<section><h1>{escape(figure.title)}</h1><p>Stage {escape(figure.stage)} of {escape(figure.recipe)}, by "
        f"{escape(models)}.</p>{figure.svg()}"
        f'<div class="wide"><table><caption>{escape(figure.x_label)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )
