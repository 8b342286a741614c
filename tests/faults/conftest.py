"""Which cases of the fault matrix run, the shops and buyers they use, and the report."""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proto.events import INVENTORY_QUEUE
from tests.faults.buyers import Buyers
from tests.faults.checks import totals
from tests.faults.injection import planted_bugs, targets
from tests.faults.injection.crash_points import CRASH_POINTS
from tests.faults.injection.faulty_infrastructure import (
    FaultyInfrastructure,
    start_faulty_infrastructure,
)
from tests.faults.shop.shop import Shop
from tests.faults.shop.start import start_shop
from tests.support import queues
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import eventually

OPTION = "--faults"
CASE_SECONDS = 300
RUNS_LAST = "test_totals.py"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with all its cases, or with some that the seed selects.

    `@pytest.mark.cases(name, values, quick=n)`: n of the values without --faults.
    """
    mark = metafunc.definition.get_closest_marker("cases")
    if mark is None:
        return
    name, values = mark.args
    values = list(values)
    if not metafunc.config.getoption(OPTION):
        rng = random.Random(f"{seed_of(metafunc.config)} {metafunc.definition.name}")
        selected = set(rng.sample(values, k=mark.kwargs["quick"]))
        values = [value for value in values if value in selected]
    metafunc.parametrize(name, values)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give cases their time, put the totals last, and deselect what only the whole matrix runs."""
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in own:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(CASE_SECONDS))
    last = {item for item in own if item.path.name == RUNS_LAST}
    items.sort(key=last.__contains__)
    if config.getoption(OPTION):
        return
    deselected = {item for item in own if item.get_closest_marker("whole_matrix")}
    groups: dict[str, list[pytest.Item]] = {}
    for item in own:
        if mark := item.get_closest_marker("one_of"):
            groups.setdefault(mark.args[0], []).append(item)
    for name, group in groups.items():
        selected = random.Random(f"{seed_of(config)} {name}").choice(group)
        deselected |= {item for item in group if item is not selected}
    if deselected:
        config.hook.pytest_deselected(items=list(deselected))
        items[:] = [item for item in items if item not in deselected]


def seed_of(config: pytest.Config) -> str:
    """The seed of this run."""
    return str(config.getoption("--seed"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts to the controller, if this is a worker of pytest-xdist."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = dict(totals.COUNTS)
        session.config.workeroutput["crash_points"] = sorted(totals.CRASH_POINTS_HIT)


def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker, unless it crashed."""
    output = getattr(node, "workeroutput", {})
    totals.COUNTS.update(output.get("counts", {}))
    totals.CRASH_POINTS_HIT.update(output.get("crash_points", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report what the passed cases counted, and the crash points that were hit."""
    if totals.COUNTS:
        seed = seed_of(terminalreporter.config)
        terminalreporter.write_line(f"fault matrix, seed {seed}: {_summary(totals.COUNTS)}")
    if totals.CRASH_POINTS_HIT:
        points = "\n".join(f"  {point}" for point in sorted(totals.CRASH_POINTS_HIT))
        count = len(totals.CRASH_POINTS_HIT)
        terminalreporter.write_line(f"crash points hit: {count}\n{points}")


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> str:
    """The seed of every random choice of this run."""
    return seed_of(request.config)


@pytest.fixture(scope="session", autouse=True)
def existing_targets() -> None:
    """Fail every test if a function that this suite wraps in the product was renamed."""
    names = [point.target for point in CRASH_POINTS.values()]
    unknown = targets.unknown([*names, *planted_bugs.TARGETS])
    if unknown:
        pytest.fail("functions that tests wrap do not exist:\n" + "\n".join(unknown), pytrace=False)


@pytest.fixture(autouse=True)
def progress(request: pytest.FixtureRequest, seed: str) -> Iterator[None]:
    """With --faults, report the time and the counts of each test as it ends."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is None or capture is None or not request.config.getoption(OPTION):
        yield
        return
    started = time.monotonic()
    before = totals.COUNTS.copy()
    yield
    seconds, counts = time.monotonic() - started, totals.COUNTS - before
    with capture.global_and_fixture_disabled():
        reporter.write_line(
            f"\n  {request.node.name}: {seconds:.0f} s, seed {seed}, {_summary(counts)}"
        )


StartShop = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def start_own_shop(infrastructure: Infrastructure, tmp_path: Path) -> StartShop:
    """Starts a shop for this test only; options as those of `start_shop`."""

    def start(**options: Any) -> AbstractAsyncContextManager[Shop]:
        return start_shop(infrastructure, tmp_path, **options)

    return start


@pytest_asyncio.fixture(scope="package")
async def shop(
    infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """The shop of all tests that do not damage it permanently, with a proxy in each link."""
    async with start_shop(infrastructure, tmp_path_factory.mktemp("shop"), linked=True) as running:
        yield running
        await assert_quiet(running)


@pytest.fixture(scope="module")
def faulty_infrastructure(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FaultyInfrastructure]:
    """A PostgreSQL and a RabbitMQ for one module, which may crash them."""
    with start_faulty_infrastructure(tmp_path_factory.mktemp("faulty") / "run") as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def shop_under_fault(
    faulty_infrastructure: FaultyInfrastructure, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """A shop on the infrastructure that the module may crash."""
    folder = tmp_path_factory.mktemp("shop")
    async with start_shop(faulty_infrastructure.infrastructure, folder) as running:
        yield running
        await assert_quiet(running)


async def assert_quiet(shop: Shop) -> None:
    """No service found a late inconsistency, and the consumer's queue has no unacked message."""
    assert shop.new_inconsistencies() == []

    async def messages() -> int:
        return await queues.total_count(shop.broker, INVENTORY_QUEUE)

    await eventually(messages, lambda count: count == 0)


@pytest_asyncio.fixture(scope="package")
async def registered_buyers(shop: Shop, seed: str) -> Buyers:
    """The buyers of the shop; modules with a shop of their own override this fixture."""
    return await Buyers.register(shop, seed)


@pytest.fixture
def buyers(registered_buyers: Buyers, request: pytest.FixtureRequest) -> Buyers:
    """The buyers, who order what belongs to this test."""
    registered_buyers.start_case(request.node.name)
    return registered_buyers
