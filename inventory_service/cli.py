"""The commands of `python -m inventory_service`."""

import typer

from inventory_service.consistency.checks import CHECKS, run_checks
from inventory_service.settings import Settings
from service_kit import cli
from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import open_engine

STATEMENT_SECONDS = 600.0
"""The whole ledger is read: that may take minutes."""

commands = typer.Typer()


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Bring the database to the newest revision, and exit.

    The service does the same when it starts. Several replicas may run it at once.
    """
    settings = cli.load_settings(Settings, env_file)
    cli.run_migrations(settings.inventory_database_url, "inventory_service")


@commands.command()
def check(env_file: cli.EnvFile = None) -> None:
    """Check that stock, ledger and reservations agree, over the whole database.

    Reads everything as of one moment, while the service runs, and writes nothing.
    Each finding names the product or the order.

    Exit code: 0, no findings; 1, findings; 2, the check could not run.
    """
    settings = cli.load_settings(Settings, env_file)
    raise cli.print_findings(cli.run(_run_checks(settings.inventory_database_url)))


async def _run_checks(url: str) -> dict[Check, list[Finding]]:
    findings = {}
    opened = open_engine(url, "inventory_check", 1, statement_seconds=STATEMENT_SECONDS)
    with cli.progress("checks", len(CHECKS)) as advance:
        async with opened as engine:
            async for check_, found in run_checks(engine):
                findings[check_] = found
                advance(1)
    return findings
