"""The command line of a service: it serves, lists its commands, and names invalid settings."""

import asyncio
import os
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner, Result

from service_kit.cli import service_cli
from service_kit.settings import DatabaseUrl, Port, ServiceSettings


class Settings(ServiceSettings):
    """Two required settings."""

    shop_database_url: DatabaseUrl
    shop_port: Port


async def serve(_settings: Settings, _stop: asyncio.Event) -> None:
    """Return at once."""


@pytest.fixture
def app() -> typer.Typer:
    """A service with one command."""
    commands = typer.Typer()

    @commands.command()
    def count() -> None:
        """Count what is in stock."""
        typer.echo("7")

    return service_cli("shop_service", Settings, serve, "A shop.", commands)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The arguments of each start of a service, none of which is really started."""
    found: list[tuple[object, ...]] = []

    def start(*arguments: object) -> int:
        found.append(arguments)
        return 1

    monkeypatch.setattr("service_kit.cli.run_service", start)
    return found


def run(app: typer.Typer, *arguments: str, **variables: str) -> Result:
    """Run the command line with these variables and no others of a service."""
    without: dict[str, str | None] = dict.fromkeys(
        name for name in os.environ if name.endswith(("_PORT", "_ADDR", "_URL"))
    )
    wide = {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, arguments, env={**without, **wide, **variables})


@pytest.mark.parametrize("arguments", [(), ("serve",)])
def test_without_a_command_the_service_serves_and_ends_with_its_exit_code(
    app: typer.Typer, starts: list[tuple[object, ...]], arguments: tuple[str, ...]
) -> None:
    result = run(app, *arguments)
    assert result.exit_code == 1
    assert starts == [("shop_service", Settings, serve)]


def test_a_command_runs_and_the_service_does_not_serve(
    app: typer.Typer, starts: list[tuple[object, ...]]
) -> None:
    result = run(app, "count")
    assert (result.exit_code, result.stdout) == (0, "7\n")
    assert starts == []


def test_help_lists_the_commands(app: typer.Typer, starts: list[tuple[object, ...]]) -> None:
    result = run(app, "--help")
    assert result.exit_code == 0
    for text in ("A shop.", "serve", "count", "Count what is in stock."):
        assert text in result.output
    assert starts == []


def test_an_unknown_command_ends_with_2_and_is_named(
    app: typer.Typer, starts: list[tuple[object, ...]]
) -> None:
    result = run(app, "drop")
    assert result.exit_code == 2
    assert "No such command 'drop'" in result.stderr
    assert starts == []


def test_settings_that_are_missing_or_invalid_end_with_2_and_are_all_named(
    app: typer.Typer,
) -> None:
    result = run(app, SHOP_PORT="0")
    assert result.exit_code == 2
    first, *lines = result.stderr.splitlines()
    assert first == "shop_service: settings are missing or invalid:"
    assert [line.split(": ")[0] for line in lines] == ["SHOP_DATABASE_URL", "SHOP_PORT"]


@pytest.mark.parametrize("name", ["inventory", "order", "user"])
def test_a_service_without_its_database_url_ends_with_2_and_names_it(name: str) -> None:
    result = run(import_module(f"{name}_service.__main__").app)
    assert result.exit_code == 2
    assert f"{name}_service: settings are missing or invalid" in result.stderr
    assert f"{name.upper()}_DATABASE_URL: Field required" in result.stderr
