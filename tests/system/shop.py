"""The shop over HTTP, as its callers see it: nobody, customers, the administrator."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

Json = dict[str, Any]

PASSWORD = "correct horse battery"
WAIT = "wait=20"
"""For the header Prefer: answer once the order is settled."""


@dataclass(frozen=True)
class Caller:
    """Somebody who calls the API, with a token or without."""

    http: httpx.AsyncClient
    token: str = ""
    user_id: int = 0
    email: str = ""

    async def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request; a body that is no bytes goes as JSON."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        if body is None:
            content = {}
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return await self.http.request(method, path, headers={**own, **(headers or {})}, **content)

    async def get(self, path: str, **query: object) -> Json:
        """The answer to a GET, which succeeds."""
        answer = await self.call("GET", str(httpx.URL(path, params=query)) if query else path)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    async def post(self, path: str, body: object = None, status: int = 201, **headers: str) -> Json:
        """The answer to a POST, which succeeds; `headers` with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.call("POST", path, body, named)
        assert answer.status_code == status, answer.text
        return dict(answer.json()) if answer.content else {}

    async def registered(self) -> "Caller":
        """A new customer, logged in."""
        account = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "name": "Ada"}
        user = await self.post("/v1/auth/register", account)
        return await self.logged_in(account["email"], PASSWORD, user["id"])

    async def logged_in(self, email: str, password: str, user_id: int = 0) -> "Caller":
        """The same client, as this user."""
        tokens = await self.post(
            "/v1/auth/login", {"email": email, "password": password}, status=200
        )
        return replace(self, token=tokens["access_token"], user_id=user_id, email=email)

    async def product(self, stock: int = 100, price: str = "12.50", name: str = "thing") -> int:
        """A new product's id, for an administrator."""
        body = {"name": name, "price": price, "stock": stock}
        return int((await self.post("/v1/products", body))["id"])

    async def order(self, product_id: int, quantity: int = 1, **headers: str) -> Json:
        """A new order; it is settled if it can be."""
        body = {"items": [{"product_id": product_id, "quantity": quantity}]}
        return await self.post("/v1/orders", body, 201, Prefer=WAIT, **headers)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is a whole problem document and tells nothing inside."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["X-Request-Id"]
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    for inside in ("Traceback", 'File "', ".py", "sqlalchemy", "asyncpg", "grpc"):
        assert inside not in answer.text
    return answer.status_code, document["code"]
