"""Which SQLSTATEs are Unavailable, and which errors propagate unchanged."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Unavailable
from service_kit.postgres.engine import transaction
from tests.integration.postgres.statements import execute


def raising(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", ["28000", "42501", "XX000", "XX001", "25P03"])
async def test_a_state_that_an_operator_will_undo_is_reported_as_unavailable(
    engine: AsyncEngine, state: str
) -> None:
    with pytest.raises(Unavailable) as error:
        await execute(engine, raising(state))
    assert error.value.metadata == {"state": state}


@pytest.mark.parametrize("state", ["42703", "42P01", "42601", "22012", "22P02", "23505", "P0001"])
async def test_an_error_in_a_statement_propagates_unchanged(
    engine: AsyncEngine, state: str
) -> None:
    with pytest.raises(DBAPIError):
        await execute(engine, raising(state))


async def test_a_constraint_violation_propagates_unchanged(engine: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        await execute(engine, "UPDATE account SET amount = -1")


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("SELECT CAST(:value AS bigint)", 2**63),
        ("SELECT CAST(:value AS bigint)", "text"),
        ("SELECT CAST(:value AS text)", "a\0b"),
        ("SELECT 1 / CAST(:value AS int)", 0),
        ("SELECT no_such_column, CAST(:value AS int)", 0),
    ],
)
async def test_an_error_in_a_statement_is_not_reported_as_an_unavailable_database(
    engine: AsyncEngine, statement: str, value: object
) -> None:
    """A caller that retries until the database returns would retry forever."""
    with pytest.raises(DBAPIError):
        async with transaction(engine) as connection:
            await connection.execute(text(statement), {"value": value})
