"""The pictures of docs/performance.md, drawn with matplotlib (in requirements-dev.lock)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.growth.run import Step
from benchmarks.results import PROGRAMS
from benchmarks.speed.orders import Measurement
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = Path(__file__).with_suffix(".mplstyle")
_BLUE, _ORANGE = "#0969da", "#d4730b"


def draw_order(one: Measurement, path: Path) -> None:
    """Draw where the time of an order goes: its stages, and its CPU by program."""
    stages = {
        "request to response": one.load.milliseconds["p50"],
        "accepted to published": one.stages_milliseconds["published"],
        "accepted to stock deducted": one.stages_milliseconds["deducted"],
        "accepted to settled": one.stages_milliseconds["settled"],
    }
    cpu = {name.removesuffix("_service"): one.cpu_milliseconds.get(name, 0.0) for name in PROGRAMS}
    with _figure(path, height=5.6) as figure:
        above, below = figure.subplots(2, 1, height_ratios=[len(stages), len(cpu)])
        title = f"Stages of an order with {one.clients} clients: medians, ms"
        _draw_bars(above, title, stages, "%.0f", _BLUE)
        title = f"CPU per order by program: {one.cpu_per_order:.2f} ms in total"
        _draw_bars(below, title, cpu, "%.3f", _ORANGE)


def draw_growth(steps: Sequence[Step], path: Path) -> None:
    """Draw CPU per order over the orders stored: the grown system and the empty one."""
    stored = [step.stored for step in steps]
    with _figure(path, height=3.8) as figure:
        axes = figure.subplots()
        for label, colour, pairs in (
            ("grown system", _BLUE, [step.grown for step in steps]),
            ("empty system, alternating with it", _ORANGE, [step.empty for step in steps]),
        ):
            cpu = [median(one.cpu_per_order for one in measurements) for measurements in pairs]
            axes.plot(stored, cpu, marker="o", linewidth=2, color=colour, label=label)
        axes.set_title("CPU per order over the orders stored, all programs")
        # Logarithmic above 10,000, so that the empty system has a place.
        axes.set_xscale("symlog", linthresh=10_000)
        axes.set_xticks(stored, [f"{each:,}" for each in stored], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlabel("orders stored")
        axes.set_ylabel("ms")
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y")
        axes.legend(loc="lower right", frameon=False)


def _draw_bars(
    axes: "Axes", title: str, values: dict[str, float], number_format: str, colour: str
) -> None:
    bars = axes.barh(list(values), list(values.values()), color=colour, height=0.65)
    axes.bar_label(bars, fmt=number_format, padding=4)
    axes.margins(x=0.08)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)


@contextmanager
def _figure(path: Path, height: float) -> Iterator["Figure"]:
    """A figure to draw inside the block, which is then written as SVG, the same each time."""
    # Imported only here: a run that draws nothing does not need it.
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise LauncherError("pictures need matplotlib: install requirements-dev.lock") from error
    with mpl.rc_context(fname=_STYLE):
        figure = Figure(figsize=(8.6, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata={"Date": None, "Creator": None})
