"""A probe of a database, through the driver that the services use."""

import asyncio

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

_TIMEOUT_SECONDS = 5


def connection_error(url: str) -> str | None:
    """Why a client cannot connect to the database at `url`; None if it can."""
    return asyncio.run(_connection_error(url))


async def _connection_error(url: str) -> str | None:
    # As the services connect: SQLAlchemy reads more of a URL than asyncpg itself does.
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), engine.connect():
            return None
    except TimeoutError:
        return f"no response within {_TIMEOUT_SECONDS} s"
    except (
        OSError,
        ValueError,
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        return str(error) or type(error).__name__
    finally:
        await engine.dispose()
