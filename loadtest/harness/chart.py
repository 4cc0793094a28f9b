"""A bar chart as SVG: plain text that any browser draws, in colours for light and for dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

ROW, BAR, LEFT, WIDTH, RIGHT = 24, 14, 230, 400, 210
STYLE = """\
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600 }
    .note { fill: #59636e; font-size: 12px }
    .bar { fill: #8c959f }
    .ours { fill: #0969da }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .note { fill: #9198a1 }
      .bar { fill: #6e7681 }
      .ours { fill: #4493f8 }
    }"""


@dataclass(frozen=True)
class Bar:
    """One row; `length` is a share of the longest bar there can be, 1."""

    name: str
    length: float
    label: str
    ours: bool


def draw(title: str, note: str, bars: Sequence[Bar]) -> str:
    """The chart, from the longest bar to the shortest."""
    full = max([1.0, *(bar.length for bar in bars)])
    rows = sorted(bars, key=lambda bar: -bar.length)
    height = 64 + ROW * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img">',
        f"  <title>{escape(title)}</title>",
        f"  <style>\n{STYLE}\n  </style>",
        f'  <text class="title" x="12" y="22">{escape(title)}</text>',
        f'  <text class="note" x="12" y="41">{escape(note)}</text>',
    ]
    for number, bar in enumerate(rows):
        lines += _row(bar, 54 + ROW * number, WIDTH * bar.length / full)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(bar: Bar, top: int, length: float) -> list[str]:
    kind = "bar ours" if bar.ours else "bar"
    # Text sits on its baseline: this one centres it on the bar.
    base = top + BAR - 3
    return [
        f'  <text x="{LEFT - 10}" y="{base}" text-anchor="end">{escape(bar.name)}</text>',
        f'  <rect class="{kind}" x="{LEFT}" y="{top}" width="{max(length, 1):.1f}" height="{BAR}" rx="2"/>',
        f'  <text class="note" x="{LEFT + max(length, 1) + 8:.1f}" y="{base}">{escape(bar.label)}</text>',
    ]
