"""Requests that the API refuses, and a checker that a refusal changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.api_client import PASSWORD, ApiClient, Json, problem
from tests.support.system import System

MEBIBYTE = 1024 * 1024
ORDER: Json = {"items": [{"product_id": 1, "quantity": 1}]}
ACCOUNT: Json = {"email": "new@example.com", "password": PASSWORD, "name": "Ada"}
LEGACY_ORDER: Json = {
    "user_id": "{user_id}",
    "items": [
        {"product_id": "{product}", "quantity": 2, "unit_price": "12.50", "total_price": "25.00"}
    ],
}
PRODUCT: Json = {"name": "thing", "price": "1.00", "stock": 1}


@dataclass(frozen=True)
class Refusal:
    """A request, who sends it, and the expected problem.

    {braces} in the path and the body stand for values of the RefusalChecker; `pointers` are those
    of the problem's errors.
    """

    call: str
    body: object
    status: int
    code: str
    pointers: tuple[str, ...] = ()
    client: str = "customer"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.call} {self.code} {' '.join(self.pointers)}"


@dataclass(frozen=True)
class RefusalChecker:
    """Sends requests that must be refused, as different clients."""

    system: System
    clients: Mapping[str, ApiClient]
    values: Mapping[str, Any]

    async def check(self, refusal: Refusal) -> httpx.Response:
        """Send the request; it is refused as expected and changes no row. The response."""
        method, path = refusal.call.split(" ", 1)
        client = self.clients[refusal.client]
        path, body = path.format(**self.values), self._filled(refusal.body)
        async with self.system.unchanged():
            response = await client.call(method, path, body, refusal.headers)
        assert problem(response) == (refusal.status, refusal.code)
        errors = response.json().get("errors", ())
        assert [error["pointer"] for error in errors] == list(refusal.pointers)
        assert all(error["detail"] for error in errors)
        return response

    def _filled(self, body: object) -> object:
        """The body with the {braces} in its strings replaced, as in paths."""
        if isinstance(body, dict):
            return {key: self._filled(value) for key, value in body.items()}
        if isinstance(body, list):
            return [self._filled(value) for value in body]
        return self.values[body[1:-1]] if isinstance(body, str) and body[:1] == "{" else body
