"""Passwords: their rules, and Argon2id on a few threads behind a bounded queue."""

import asyncio
import os
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from passlib.context import CryptContext

from service_kit.errors import InvalidArgument, ResourceExhausted

MIN_LENGTH = 10
MAX_LENGTH = 128
NICENESS = 10
"""Of the hashing threads, added to the process's (Linux: each thread has its own)."""

P = ParamSpec("P")
T = TypeVar("T")


def check_password(password: str) -> None:
    """InvalidArgument (INVALID_PASSWORD) unless a new account may have this password."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise _invalid_password(f"A password must have {MIN_LENGTH} to {MAX_LENGTH} characters.")
    if "\0" in password:
        raise _invalid_password("A password must not have a NUL character.")


def _invalid_password(message: str) -> InvalidArgument:
    return InvalidArgument("INVALID_PASSWORD", message, field="password")


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a password matched, and the hash to store instead if its parameters are outdated."""

    matches: bool
    new_hash: str | None = None


class Passwords:
    """Hashes and verifies passwords; a context manager that ends its threads.

    `memory_cost` is in KiB. At most `workers` passwords are worked on at once and at most `queue`
    more wait; beyond that ResourceExhausted (OVERLOADED). A cancelled caller leaves the queue.
    """

    def __init__(
        self, *, time_cost: int, memory_cost: int, parallelism: int, workers: int, queue: int
    ) -> None:
        self._hasher = CryptContext(
            ["argon2"],
            argon2__type="ID",
            argon2__time_cost=time_cost,
            argon2__memory_cost=memory_cost,
            argon2__parallelism=parallelism,
        )
        self._decoy = self._hasher.hash(secrets.token_urlsafe())
        self._room = workers + queue
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="passwords", initializer=_lower_priority
        )

    def __enter__(self) -> Self:
        """Ready once constructed."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what is queued and finish what is being worked on."""
        self._pool.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The Argon2id hash of a password, with its own salt, as a PHC string."""
        return await self._run(self._hasher.hash, _normalised(password))

    async def verify(self, password: str, stored: str | None) -> Verification:
        """Compare a password with a stored hash; no hash never matches, after the same work."""
        if len(password) > MAX_LENGTH:
            return Verification(matches=False)
        matches, new_hash = await self._run(
            self._hasher.verify_and_update, _normalised(password), stored or self._decoy
        )
        return Verification(matches and stored is not None, new_hash)

    async def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._room == 0:
            raise ResourceExhausted("OVERLOADED", "Too many passwords are waiting to be hashed.")
        self._room -= 1
        try:
            return await asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))
        finally:
            self._room += 1


def _lower_priority() -> None:
    # Otherwise a flood of logins would take the processors from all other requests.
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def _normalised(password: str) -> str:
    # Keyboards differ in how they compose accents (RFC 8265, OpaqueString).
    return unicodedata.normalize("NFC", password)
