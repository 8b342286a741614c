"""The commands of `python -m user_service`."""

import typer

from service_kit import cli
from user_service.settings import Settings

commands = typer.Typer()


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Bring the database to the newest revision, and exit.

    The service does the same when it starts. Several replicas may run it at once.
    """
    settings = cli.load_settings(Settings, env_file)
    cli.run_migrations(settings.user_database_url, "user_service")
