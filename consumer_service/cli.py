"""The consumer's commands: `python -m consumer_service dead-letters list`."""

import typer

from consumer_service.dead_letters.cli import dead_letter_commands

commands = typer.Typer()
commands.add_typer(dead_letter_commands, name="dead-letters")
