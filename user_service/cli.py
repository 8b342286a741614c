"""The commands of `python -m user_service`."""

import typer

from service_kit import cli
from user_service.settings import Settings

commands = typer.Typer()


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Create or upgrade the tables in the database at USER_DATABASE_URL, and exit.

    Does nothing if they are up to date. Several replicas may run it at once.
    `serve` does the same before it serves.
    """
    settings = cli.load_settings(Settings, env_file)
    cli.run_migrations(settings.user_database_url, "user_service")
