"""One engine per service, short transactions, driver failures as service errors."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import asyncpg
import stamina
from sqlalchemy import Row, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service_kit.errors import Aborted, ServiceError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

AnyRow = Row[*tuple[Any, ...]]
"""A row of a whole table, its columns by name."""

CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 8.0

_CONFLICTS = {"40001": "serialization failure", "40P01": "deadlock"}
_TRANSIENT = {
    "25006": "the server became a read-only replica",
    "25P03": "it ended an idle transaction",
    "28000": "the role may not log in",
    "28P01": "the password was changed",
    "3D000": "the database is being restored",
    "42501": "a privilege was revoked",
    "55000": "the database is closed to connections",
}
"""What an operator did to the server and will undo: the request is not at fault."""


@asynccontextmanager
async def open_engine(
    url: str, service: str, pool_size: int = 8, *, statement_seconds: float | None = None
) -> AsyncIterator[AsyncEngine]:
    """An engine on `url` (`postgresql+asyncpg://…`) inside the block; connects lazily.

    Connecting, waiting for the pool and every statement have deadlines.
    """
    statement_seconds = statement_seconds or STATEMENT_SECONDS
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        # Errors are logged; the values of statements may be secrets.
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": statement_seconds,
            "server_settings": {
                "application_name": service,
                "statement_timeout": f"{statement_seconds:g}s",
                "idle_in_transaction_session_timeout": "30s",
                # The locks of a peer that vanished are released within 20 s.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "2",
                # Plans made while the tables were nearly empty cost three times as much later.
                "plan_cache_mode": "force_custom_plan",
                "jit": "off",
            },
        },
    )
    listen(engine.sync_engine.pool, "checkout", _renew_if_lost)
    try:
        yield engine
    finally:
        await engine.dispose()


def _renew_if_lost(connection: DBAPIConnection, _record: object, _proxy: object) -> None:
    """Let the pool replace a connection that the server closed; a ping would cost 3 round trips."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction, committed at the end of the block, rolled back if the block raises.

    Raises Aborted (DATABASE_CONFLICT) for a deadlock or serialization failure, and Unavailable
    (DATABASE_UNAVAILABLE) when the database is unreachable, full, too slow or closed: the outcome
    of the commit is then unknown. Constraint violations propagate unchanged.
    """
    try:
        async with engine.begin() as connection:
            yield connection
    except Exception as error:
        failure = as_service_error(error)
        if failure is None:
            raise
        raise failure from error


@asynccontextmanager
async def autocommit(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection on which each statement is its own transaction; errors as in `transaction`."""
    try:
        async with engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")
    except Exception as error:
        failure = as_service_error(error)
        if failure is None:
            raise
        raise failure from error


@asynccontextmanager
async def dry_run(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """As `transaction`, but always rolled back."""
    async with transaction(engine) as connection:
        yield connection
        await connection.rollback()


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A read-only transaction: all statements see the database as the first one saw it."""
    async with transaction(engine) as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


def as_service_error(error: Exception) -> ServiceError | None:
    """The error for a driver's or pool's exception; None if it should propagate unchanged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = str(getattr(cause, "sqlstate", None) or "")
    if state in _CONFLICTS:
        return Aborted("DATABASE_CONFLICT", _CONFLICTS[state])
    # Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html: connection,
    # insufficient resources, operator intervention, system error, internal error.
    if state[:2] in ("08", "53", "57", "58", "XX") or state in _TRANSIENT:
        why = _TRANSIENT.get(state, "the database does not answer")
        return Unavailable("DATABASE_UNAVAILABLE", why, state=state)
    lost = (OSError, TimeoutError, PoolTimeoutError, asyncpg.InterfaceError)
    if isinstance(cause, lost) or (isinstance(error, DBAPIError) and not state):
        return Unavailable("DATABASE_UNAVAILABLE", "the database does not answer")
    return None


def retrying_conflicts(operation: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Run a whole transaction again after a deadlock or serialization failure."""
    return stamina.retry(on=Aborted, attempts=5, timeout=5.0, wait_initial=0.01, wait_max=0.2)(
        operation
    )
