"""The pages: links lead somewhere, and what they name exists."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from api_gateway.problems import PROBLEM_TYPES
from api_gateway.routes import ROUTES
from launcher.services import SERVICES
from service_kit.settings import ServiceSettings
from tests.support.infrastructure import CHECKOUT

DOCS = CHECKOUT / "docs"
DECISIONS = sorted(DOCS.glob("decisions/[0-9]*.md"))
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
MAX_README_LINES = 150
EXAMPLES = ("proto/review.proto", "review_service/")
"""Files that a reader of "Add a service" creates."""
PATH = r"(\w[\w.-]*/)*(\w[\w.-]*\.(py|md|proto|sh|toml|lock|yaml|mako|svg)|\w[\w.-]*/)"
"""A file or a folder, perhaps without the folders that it is in."""

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix()
)


def without_code(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def existing_paths() -> frozenset[str]:
    """The files and folders of the checkout that are not hidden; folders end with a slash."""
    tops = [path for path in CHECKOUT.iterdir() if not path.name.startswith(".")]
    paths = [*tops, *(path for top in tops for path in top.rglob("*"))]
    return frozenset(
        f"/{path.relative_to(CHECKOUT).as_posix()}{'/' * path.is_dir()}" for path in paths
    )


def current(pages: list[Path]) -> list[Path]:
    """The pages that describe the system as it is."""
    return [
        page
        for page in pages
        if page.name != "CHANGELOG.md" and "* Status: superseded" not in page.read_text()
    ]


def section(page: Path, heading: str) -> str:
    """What is below a heading of the second level."""
    _, _, rest = page.read_text().partition(f"\n## {heading}\n")
    assert rest, heading
    return rest.partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a text, without their headers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line, following in pairwise([*lines, ""]):
        if not (line.startswith("|---") or following.startswith("|---")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def code_spans(text: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", text)


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize(
    "page", current(PAGES), ids=lambda page: page.relative_to(CHECKOUT).as_posix()
)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for span in code_spans(without_code(text)):
        path = span.removeprefix("./")
        if re.fullmatch(PATH, path) and not path.startswith(EXAMPLES):
            assert any(existing.endswith(f"/{path}") for existing in existing_paths()), span
    for module in re.findall(r"python -m ((?:\w+\.)*\w+)", text):
        assert find_spec(module), module


def test_the_readme_is_short() -> None:
    lines = (CHECKOUT / "README.md").read_text().splitlines()
    assert len(lines) <= MAX_README_LINES


def test_the_readme_names_every_page_and_every_folder() -> None:
    text = (CHECKOUT / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert f"](docs/{page.name})" in text, page.name
    for folder in (path.parent for path in CHECKOUT.glob("*/__init__.py")):
        assert f"| `{folder.name}/` |" in text, folder.name


def default_of(settings: type[ServiceSettings], name: str) -> object:
    """The default of a setting, "required" if it has none, "none" if that is empty."""
    ports: dict[str, Any] = {
        field: info.default
        for field, info in settings.model_fields.items()
        if field.endswith("_port")
    }
    value = settings.model_fields[name].get_default(call_default_factory=True, validated_data=ports)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "none" if value in (None, "") else value


def documented_settings(heading: str) -> dict[str, str]:
    """Each variable in a section of docs/configuration.md, with its default."""
    found: dict[str, str] = {}
    for variables, defaults, _ in rows(section(DOCS / "configuration.md", heading)):
        names = code_spans(variables)
        values = defaults.replace("`", "").split(", ") if len(names) > 1 else [defaults.strip("`")]
        found |= dict(zip(names, values, strict=True))
    return found


@pytest.mark.parametrize("service", ["", *(service.name for service in SERVICES)])
def test_each_setting_is_documented_with_its_default_and_nothing_else_is(service: str) -> None:
    common = ServiceSettings.model_fields
    settings = import_module(f"{service}.settings").Settings if service else ServiceSettings
    defaults = {
        name.upper(): default_of(settings, name)
        for name in settings.model_fields
        if not service or name not in common
    }
    page = documented_settings(service or "Every service")
    assert page.keys() == defaults.keys()
    for name, default in defaults.items():
        if isinstance(default, int | float):
            assert float(page[name]) == default, name
        else:
            assert page[name] == default, name


def test_each_variable_of_the_launcher_is_one_that_it_reads() -> None:
    sources = [*(CHECKOUT / "launcher").rglob("*.py"), CHECKOUT / "launcher" / "venv.sh"]
    text = "\n".join(path.read_text() for path in sources)
    for variable in documented_settings("start-services.sh"):
        assert re.search(rf"\b{variable}\b", text), variable


def test_each_route_is_documented_and_nothing_else_is() -> None:
    page = DOCS / "api.md"
    calls = [
        row[0] for heading in ("Calls", "Legacy paths") for row in rows(section(page, heading))
    ]
    named = {tuple(span.split()) for call in calls for span in code_spans(call)}
    assert named == {(route.method, route.path) for route in ROUTES}


def test_each_problem_code_is_documented_with_its_status() -> None:
    documented_codes = {
        code: int(status)
        for status, codes in rows(section(DOCS / "api.md", "Errors"))
        for code in code_spans(codes)
    }
    assert documented_codes == {code: kind.status for code, kind in PROBLEM_TYPES.items()}


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_each_decision_has_status_date_and_its_sections(decision: Path) -> None:
    text = decision.read_text()
    number = decision.name[:4]
    assert re.match(rf"# ({number}|NNNN) .+\n\n\* Status: .+\n(  .+\n)*\* Date: \S+", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Alternatives",
        "Consequences",
    ]


def test_the_index_lists_every_decision_as_it_is() -> None:
    listed = {
        number: (title, status.partition(" ")[0], date)
        for number, title, status, date in rows((DOCS / "decisions" / "README.md").read_text())
    }
    expected = {}
    for decision in DECISIONS[1:]:  # the first one is the template
        text = decision.read_text()
        number, title = re.findall(r"^# (\d{4}) (.+)$", text, re.MULTILINE)[0]
        (status,) = re.findall(r"^\* Status: (\w+)", text, re.MULTILINE)
        (date,) = re.findall(r"^\* Date: (\d{4}-\d{2}-\d{2})", text, re.MULTILINE)
        expected[f"[{number}]({decision.name})"] = (title, status, date)
    assert listed == expected
