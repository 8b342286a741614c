"""The benchmark, as short as can be: it runs, finds every order settled, and tells all it should.

No figure is compared with anything: tests run beside each other, on any machine.
"""

import json
import subprocess
from collections import Counter
from typing import Any

import pytest

from benchmarks import publish, speed_tables
from benchmarks.load import has_wrk
from benchmarks.report import PROGRAMS
from tests.support.infrastructure import CHECKOUT

SECONDS = 400

pytestmark = pytest.mark.timeout(SECONDS)


@pytest.fixture(scope="module", autouse=True)
def invariants() -> None:
    """Nothing to check for this module elsewhere: the benchmark has a system of its own."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "results.json"
    command = [str(CHECKOUT / "run-benchmarks.sh"), "--smoke", "--output", str(path)]
    done = subprocess.run(
        command, cwd=path.parent, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stock and ledger are exact" in done.stdout
    document: dict[str, Any] = json.loads(path.read_text())
    return {**document, "path": path}


def test_every_order_is_accepted_without_an_error_and_settled(found: dict[str, Any]) -> None:
    assert found["complaints"] == []
    for one in found["orders"]:
        assert one["outcome"]["refused"] == one["outcome"]["broken"] == 0
        good, cut_off = one["outcome"]["answered"], one["outcome"]["cut_off"]
        assert 0 < good <= one["stored"] <= good + cut_off


def test_each_program_s_share_of_an_order_is_told(found: dict[str, Any]) -> None:
    for one in found["orders"]:
        assert set(one["cpu_milliseconds"]) == set(PROGRAMS)
        assert all(spent >= 0 for spent in one["cpu_milliseconds"].values())
        assert set(one["batches"]) == {"accept", "relay", "stock", "settle"}
    assert {one["loop"] for one in found["orders"]} == {"closed", "open"}
    assert found["machine"]["closed_loop_generator"] == ("wrk" if has_wrk() else "our own")


def test_a_backlog_drains_and_past_orders_stay_consistent(found: dict[str, Any]) -> None:
    growth = found["growth"]
    assert growth["backlog"]["events"] == 300
    assert [step["stored"] for step in growth["steps"]] == [500]
    assert growth["endurance"]["pruned_after_seconds"] >= 0


def test_lists_are_paged_at_several_depths_and_plans_are_told(found: dict[str, Any]) -> None:
    growth = found["growth"]
    names = Counter(page["name"] for page in growth["pages"])
    assert {"everybody's orders", "a customer's orders", "the best seller's ledger"} <= names.keys()
    assert set(names.values()) == {3}
    ways = {plan["name"]: plan["ways"] for plan in growth["plans"]}
    assert ways["relay: unsent events"] == ["Index Scan of outbox by ix_outbox_unsent"]
    assert all(ways.values())


def test_results_are_put_between_the_markers_of_a_page(found: dict[str, Any]) -> None:
    page = found["path"].parent / "page.md"
    page.write_text(
        "before <!-- speed: figures -->stale figures<!-- speed: end -->\n"
        "<!-- growth: figures --><!-- growth: end --> after"
    )
    publish.publish([found["path"]], page)
    text = page.read_text()
    assert text.startswith("before <!-- speed: figures -->\nOne run of")
    assert "stale" not in text
    assert all(table.markdown() in text for table in speed_tables.tables(found))
    pictures = sorted(path.name for path in (page.parent / "pictures").iterdir())
    assert pictures == ["growth.svg", "order.svg"]


def test_results_of_a_void_run_are_refused(found: dict[str, Any]) -> None:
    void = found["path"].with_name("void.json")
    document = json.loads(found["path"].read_text())
    void.write_text(json.dumps({**document, "complaints": ["1 orders are PENDING"]}))
    with pytest.raises(ValueError, match="void"):
        publish.publish([void], CHECKOUT / "docs" / "performance.md")
