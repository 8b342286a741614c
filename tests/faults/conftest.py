"""Which rows of the fault matrix run, with which seed, and what is counted on the way."""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proto.events import INVENTORY_QUEUE
from tests.faults import queues, tally
from tests.faults.harness import Shop, shop_running
from tests.faults.load import Load
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import eventually

OPTION = "--faults"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread a test over its cases: all of them, or some that the seed picks.

    `@pytest.mark.rows(name, cases, quick=n)`: n of the cases run without --faults.
    """
    mark = metafunc.definition.get_closest_marker("rows")
    if mark is None:
        return
    name, cases = mark.args
    cases = list(cases)
    if not metafunc.config.getoption(OPTION):
        chance = random.Random(f"{seed_of(metafunc.config)} {metafunc.definition.name}")
        picked = set(chance.sample(cases, k=mark.kwargs["quick"]))
        cases = [case for case in cases if case in picked]
    metafunc.parametrize(name, cases)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the whole matrix runs; give slow rows their time."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
    if config.getoption(OPTION):
        return
    left_out = {item for item in mine if item.get_closest_marker("whole_matrix")}
    groups: dict[str, list[pytest.Item]] = {}
    for item in mine:
        if mark := item.get_closest_marker("one_of"):
            groups.setdefault(mark.args[0], []).append(item)
    for name, group in groups.items():
        drawn = random.Random(f"{seed_of(config)} {name}").choice(group)
        left_out |= {item for item in group if item is not drawn}
    kept = [item for item in items if item not in left_out]
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = kept


def seed_of(config: pytest.Config) -> str:
    """The seed of this run."""
    return str(config.getoption("--seed"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what was counted, if this is a worker of pytest-xdist."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(tally.TOTAL)
        session.config.workeroutput["steps"] = sorted(tally.STEPS)


def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker counted, unless it crashed."""
    output = getattr(node, "workeroutput", {})
    tally.TOTAL.update(output.get("tally", {}))
    tally.STEPS.update(output.get("steps", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what the rows that held had to bear."""
    if tally.TOTAL:
        counted = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.TOTAL.items()))
        seed = seed_of(terminalreporter.config)
        terminalreporter.write_line(f"fault matrix, seed {seed}: {counted}")
    if tally.STEPS:
        steps = "\n".join(f"  {step}" for step in sorted(tally.STEPS))
        terminalreporter.write_line(f"steps at which a service died: {len(tally.STEPS)}\n{steps}")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> str:
    """What every schedule of this run is drawn from."""
    return seed_of(request.config)


@pytest.fixture(autouse=True)
def progress(request: pytest.FixtureRequest, seed: str) -> Iterator[None]:
    """Tell each row of the whole matrix as it ends: its time and what it counted."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is None or capture is None or not request.config.getoption(OPTION):
        yield
        return
    started = time.monotonic()
    before = tally.TOTAL.copy()
    yield
    done = tally.TOTAL - before
    counted = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    with capture.global_and_fixture_disabled():
        reporter.write_line(
            f"\n  {request.node.name}: {time.monotonic() - started:.0f} s, seed {seed}, {counted}"
        )


Start = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def start(infrastructure: Infrastructure, tmp_path: Path) -> Start:
    """Starts a shop of the test's own."""

    def run(**options: Any) -> AbstractAsyncContextManager[Shop]:
        return shop_running(infrastructure, tmp_path, **options)

    return run


@pytest_asyncio.fixture(scope="package")
async def shop(
    infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """One shop, with a proxy in each link, for all rows that leave it whole."""
    async with shop_running(
        infrastructure, tmp_path_factory.mktemp("shop"), linked=True
    ) as running:
        yield running
        await left_clean(running)


async def left_clean(shop: Shop) -> None:
    """Return if the audits raised no late alarm, and nobody holds a message without its ack."""
    assert shop.alarms() == []

    async def unacked() -> int:
        return await queues.unfinished(shop.broker, INVENTORY_QUEUE)

    await eventually(unacked, lambda count: count == 0)


@pytest_asyncio.fixture(scope="package")
async def customers(shop: Shop, seed: str) -> Load:
    """The buyers of this shop; all that they were ever told must stay true."""
    return await Load.of(shop, seed)


@pytest.fixture
def load(customers: Load, request: pytest.FixtureRequest) -> Load:
    """The buyers of the shop, who draw what belongs to this row."""
    customers.begin(request.node.name)
    return customers
