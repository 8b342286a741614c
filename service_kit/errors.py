"""Errors that cross service boundaries: a canonical code, a stable reason, and metadata.

Codes are those of `google.rpc.Code`; reason and metadata travel as `google.rpc.ErrorInfo`
(https://google.aip.dev/193). This module knows no transport.
"""

from enum import IntEnum


class Code(IntEnum):
    """The canonical status codes (`google/rpc/code.proto`)."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def from_number(cls, number: int) -> "Code":
        """The code with this number; UNKNOWN for one that is not canonical."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class ServiceError(Exception):
    """A refusal or failure with a stable UPPER_SNAKE `reason` and string `metadata`."""

    code: Code = Code.UNKNOWN

    def __init__(self, reason: str, message: str, /, **metadata: object) -> None:
        """Metadata values are turned into strings, as ErrorInfo demands."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidArgument(ServiceError):
    """The request is wrong, whatever the state of the system."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(ServiceError):
    """No response before the deadline: the outcome is unknown."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(ServiceError):
    """The resource does not exist, or the caller may not see it."""

    code = Code.NOT_FOUND


class AlreadyExists(ServiceError):
    """The resource to create already exists."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(ServiceError):
    """The caller is authenticated and may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(ServiceError):
    """A queue or quota is full; try again later."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(ServiceError):
    """The state of the system does not allow it."""

    code = Code.FAILED_PRECONDITION


class Aborted(ServiceError):
    """A concurrent change came first; a retry may succeed."""

    code = Code.ABORTED


class Internal(ServiceError):
    """A bug in this system."""

    code = Code.INTERNAL


class Unavailable(ServiceError):
    """A dependency, the database or the broker is unavailable: the outcome is unknown."""

    code = Code.UNAVAILABLE


class Unauthenticated(ServiceError):
    """The caller is not authenticated."""

    code = Code.UNAUTHENTICATED


class PortUnavailable(Exception):
    """The address cannot be bound: another process is listening there."""


TRANSIENT_CODES = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.CANCELLED,
    }
)
"""Codes of failures that a retry may cure."""

_CLASSES = {cls.code: cls for cls in ServiceError.__subclasses__()}


def error_from_code(
    code: Code, reason: str, message: str, metadata: dict[str, str]
) -> ServiceError:
    """An error of the class that belongs to `code`."""
    error = _CLASSES.get(code, ServiceError)(reason, message, **metadata)
    error.code = code
    return error
