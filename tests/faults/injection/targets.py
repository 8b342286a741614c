"""Functions of the product, by dotted name, that tests wrap in a service's process.

The product has no hooks for tests. A name is written `module:attribute`, as in entry points; one
that does not exist raises UnknownTargetError, so that a renamed function is noticed at once.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

Function = Callable[..., Any]


class UnknownTargetError(Exception):
    """A name that no function of the product has."""


def find(target: str) -> Function:
    """The function with this name."""
    owner, attribute = _locate(target)
    function: Function = getattr(owner, attribute)
    return function


def replace(target: str, wrap: Callable[[Function], Function]) -> None:
    """Put `wrap(function)` in the place of the function with this name."""
    owner, attribute = _locate(target)
    setattr(owner, attribute, wrap(getattr(owner, attribute)))


def unknown(names: Iterable[str]) -> list[str]:
    """The names that no function has, each with the reason."""
    found = []
    for target in sorted(set(names)):
        try:
            find(target)
        except UnknownTargetError as error:
            found.append(str(error))
    return found


def _locate(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *outer, attribute = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for name in outer:
            owner = getattr(owner, name)
        function = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownTargetError(f"{target}: {error}") from error
    if not callable(function):
        raise UnknownTargetError(f"{target}: is not a function")
    return owner, attribute
