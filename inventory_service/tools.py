"""For the people who run inventory: `python -m inventory_service.tools audit`."""

from inventory_service.audit import RULES, run_audit
from inventory_service.settings import Settings
from service_kit import tools
from service_kit.audit import Finding, Rule
from service_kit.database import connected

STATEMENT_SECONDS = 600.0

app = tools.tool("For the people who run inventory.")


@app.command()
def audit(env_file: tools.EnvFile = None) -> None:
    """Check that stock, ledger and reservations agree; exit code 1 if something is off.

    Reads everything as of one moment, while the service goes on, and writes nothing.
    """
    settings = tools.settings(Settings, env_file)
    raise tools.report(tools.complete(_audit(settings.inventory_database_url)))


async def _audit(url: str) -> dict[Rule, list[Finding]]:
    findings = {}
    connection = connected(url, "inventory_audit", 1, statement_seconds=STATEMENT_SECONDS)
    with tools.progress("rules", len(RULES)) as advance:
        async with connection as engine:
            async for rule, found in run_audit(engine):
                findings[rule] = found
                advance(1)
    return findings


if __name__ == "__main__":
    app()
