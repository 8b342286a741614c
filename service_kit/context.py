"""The context of a call: a request id and W3C trace context, carried across every hop."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class CallContext:
    """The request id in the logs, and the `traceparent` header of W3C Trace Context."""

    request_id: str = ""
    traceparent: str = ""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As gRPC metadata, without empty values."""
        pairs = ((REQUEST_ID, self.request_id), (TRACEPARENT, self.traceparent))
        return tuple(pair for pair in pairs if pair[1])


_NONE = CallContext()
_current: ContextVar[CallContext] = ContextVar("call_context", default=_NONE)


def current() -> CallContext:
    """The context of the running call; empty outside of one."""
    return _current.get()


@contextmanager
def bound(context: CallContext) -> Iterator[None]:
    """Make `context` the current one inside the block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def new_traceparent() -> str:
    """The `traceparent` of a new, sampled trace (https://www.w3.org/TR/trace-context/#traceparent-header)."""
    digits = secrets.token_hex(24)
    return f"00-{digits[:32]}-{digits[32:]}-01"
