"""The pictures of docs/performance.md, written as SVG by hand: no plotting package is needed."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from benchmarks.report import PROGRAMS, Document

WIDTH = 760
_LEFT = 170
_COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f",
    "#bab0ac",
)  # fmt: skip
_STYLE = "font-family='sans-serif' font-size='13' fill='#333'"


def order_svg(one: Document) -> str:
    """Where the time of one order goes: its way through the system, and its CPU by process."""
    stages, latency = one["stages_milliseconds"], one["outcome"]["milliseconds"]["p50"]
    way = {
        "request to answer": latency,
        "stored to published": stages["published"],
        "stored to stock taken": stages["taken"],
        "stored to settled": stages["settled"],
    }
    scale = (WIDTH - _LEFT - 60) / max(*way.values(), 0.001)
    title = f"The way of an order at {one['clients']} clients: medians in ms"
    parts = [_text(0, 20, title, bold=True)]
    for row, (name, milliseconds) in enumerate(way.items()):
        y = 34 + 28 * row
        parts += [
            _text(0, y + 15, name),
            _bar(_LEFT, y, milliseconds * scale, _COLOURS[row]),
            _text(_LEFT + milliseconds * scale + 6, y + 15, f"{milliseconds:.0f}"),
        ]
    return _svg(280, [*parts, *_cpu_bar(one["cpu_milliseconds"], 180)])


def _cpu_bar(by_program: dict[str, float], top: int) -> Iterable[str]:
    total = sum(by_program.values())
    scale = WIDTH / max(total, 0.001)
    yield _text(0, top, f"The CPU of an order by process: {total:.2f} ms in all", bold=True)
    x = 0.0
    for number, name in enumerate(PROGRAMS):
        spent = by_program.get(name, 0.0)
        yield _bar(x, top + 12, spent * scale, _COLOURS[number])
        column, row = number % 5, number // 5
        label_x, label_y = column * WIDTH / 5, top + 64 + 26 * row
        yield _bar(label_x, label_y - 11, 12, _COLOURS[number], height=12)
        yield _text(label_x + 18, label_y, f"{name.removesuffix('_service')} {spent:.2f}")
        x += spent * scale


def growth_svg(steps: Sequence[Document]) -> str:
    """CPU an order over the orders stored, of the grown system and of the empty one beside it."""
    lines = {
        which: [
            (step["stored"], median(sum(one["cpu_milliseconds"].values()) for one in step[which]))
            for step in steps
        ]
        for which in ("grown", "empty")
    }
    highest: float = 1.25 * max(cost for points in lines.values() for _, cost in points)
    most = math.log10(max(float(step["stored"]) for step in steps) + 1000)
    height, top, bottom = 320, 50, 270

    def x(stored: float) -> float:
        # Logarithmic from 1,000 on, so that an empty system has a place, too.
        return 60 + (WIDTH - 120) * (math.log10(stored + 1000) - 3) / max(most - 3, 0.001)

    def y(cost: float) -> float:
        return bottom - (bottom - top) * cost / highest

    parts = [_text(0, 20, "CPU of an order, all processes, over the orders stored", bold=True)]
    for tick in range(5):
        cost = highest * tick / 4
        parts += [_line([(60, y(cost)), (WIDTH - 60, y(cost))], "#ddd", 1)]
        parts += [_text(0, y(cost) + 4, f"{cost:.2f} ms")]
    parts += [_text(x(step["stored"]) - 24, bottom + 20, f"{step['stored']:,}") for step in steps]
    for number, (which, points) in enumerate(lines.items()):
        parts.append(
            _line([(x(stored), y(cost)) for stored, cost in points], _COLOURS[number], 2.5)
        )
        parts.append(_bar(60 + 200 * number, height - 18, 12, _COLOURS[number], height=12))
        name = "this many stored" if which == "grown" else "empty system, in turns"
        parts.append(_text(78 + 200 * number, height - 7, name))
    return _svg(height, parts)


def _svg(height: int, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='-10 0 {WIDTH + 20} {height}' {_STYLE}>\n"
        f"<rect x='-10' width='{WIDTH + 20}' height='{height}' fill='white'/>\n{body}\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{weight}>{escape(text)}</text>"


def _bar(x: float, y: float, width: float, colour: str, height: int = 20) -> str:
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height}' fill='{colour}'/>"


def _line(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}'/>"
