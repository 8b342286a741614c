"""The shortest benchmark: it runs, every order is settled, and all results are reported.

No figure is compared with anything: tests run in parallel, on any machine.
"""

import json
import subprocess
from collections import Counter
from typing import Any

import pytest

from benchmarks.load.loops import has_wrk
from benchmarks.report import speed_tables
from benchmarks.report.publish import publish
from benchmarks.results import PROGRAMS, read_results
from tests.support.infrastructure import CHECKOUT

SECONDS = 400

pytestmark = pytest.mark.timeout(SECONDS)


@pytest.fixture(scope="module", autouse=True)
def invariants() -> None:
    """Not checked for this module: the benchmark has a separate system."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "results.json"
    command = [str(CHECKOUT / "run-benchmarks.sh"), "--smoke", "--output", str(path)]
    completed = subprocess.run(
        command, cwd=path.parent, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "stock and ledger are exact" in completed.stdout
    document: dict[str, Any] = json.loads(path.read_text())
    return {**document, "path": path}


def test_every_order_is_accepted_without_an_error_and_settled(results: dict[str, Any]) -> None:
    assert results["failures"] == []
    for one in results["orders"]:
        load = one["load"]
        assert load["error_responses"] == load["failed"] == 0
        assert 0 < load["responses"] <= one["stored"] <= load["responses"] + load["in_flight"]


def test_the_cpu_of_each_program_and_the_batch_size_of_each_hop_are_reported(
    results: dict[str, Any],
) -> None:
    for one in results["orders"]:
        assert set(one["cpu_milliseconds"]) == set(PROGRAMS)
        assert all(used >= 0 for used in one["cpu_milliseconds"].values())
        assert set(one["batches"]) == {"accept", "relay", "stock", "settle"}
    assert {one["loop"] for one in results["orders"]} == {"closed", "open"}
    generator = "wrk" if has_wrk() else "built-in"
    assert results["machine"]["closed_loop_generator"] == generator


def test_a_backlog_drains_and_past_orders_stay_consistent(results: dict[str, Any]) -> None:
    growth = results["growth"]
    assert growth["backlog"]["events"] == 300
    assert [step["stored"] for step in growth["steps"]] == [500]
    assert growth["endurance"]["pruned_after_seconds"] >= 0


def test_lists_are_paged_at_several_depths_and_query_plans_are_reported(
    results: dict[str, Any],
) -> None:
    growth = results["growth"]
    names = Counter(page["name"] for page in growth["pages"])
    assert {"all orders", "a customer's orders", "the best seller's ledger"} <= names.keys()
    assert set(names.values()) == {3}
    paths = {plan["name"]: plan["access_paths"] for plan in growth["plans"]}
    assert paths["relay: unsent events"] == ["Index Scan using ix_outbox_unsent on outbox"]
    assert all(paths.values())


def test_results_are_written_between_the_markers_of_a_page(results: dict[str, Any]) -> None:
    page = results["path"].parent / "page.md"
    page.write_text(
        "before <!-- speed: figures -->stale figures<!-- speed: end -->\n"
        "<!-- growth: figures --><!-- growth: end --> after"
    )
    publish([results["path"]], page)
    text = page.read_text()
    assert text.startswith("before <!-- speed: figures -->\nOne run of")
    assert "stale" not in text
    tables = speed_tables.tables(read_results(results["path"]))
    assert all(table.markdown() in text for table in tables)
    pictures = sorted(path.name for path in (page.parent / "pictures").iterdir())
    assert pictures == ["growth.svg", "order.svg"]


def test_results_of_a_void_run_are_refused(results: dict[str, Any]) -> None:
    void = results["path"].with_name("void.json")
    document = json.loads(results["path"].read_text())
    void.write_text(json.dumps({**document, "failures": ["1 orders are PENDING"]}))
    with pytest.raises(ValueError, match="void"):
        publish([void], CHECKOUT / "docs" / "performance.md")
