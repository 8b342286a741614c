"""For the people who run inventory: `python -m inventory_service.tools audit`."""

import typer

from inventory_service.audit import RULES, run_audit
from inventory_service.settings import Settings
from service_kit import cli
from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate

STATEMENT_SECONDS = 600.0

commands = typer.Typer()


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Bring the database to the newest revision, as serving does too."""
    settings = cli.load_settings(Settings, env_file)
    cli.run(migrate(settings.inventory_database_url, "inventory_service"))


@commands.command()
def check(env_file: cli.EnvFile = None) -> None:
    """Check that stock, ledger and reservations agree; exit code 1 if something is off.

    Reads everything as of one moment, while the service goes on, and writes nothing.
    """
    settings = cli.load_settings(Settings, env_file)
    raise cli.print_findings(cli.run(_audit(settings.inventory_database_url)))


async def _audit(url: str) -> dict[Check, list[Finding]]:
    findings = {}
    connection = open_engine(url, "inventory_audit", 1, statement_seconds=STATEMENT_SECONDS)
    with cli.progress("rules", len(RULES)) as advance:
        async with connection as engine:
            async for rule, found in run_audit(engine):
                findings[rule] = found
                advance(1)
    return findings
