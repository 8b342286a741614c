"""A client of the REST API: anonymous, a customer, or the administrator."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

Json = dict[str, Any]

PASSWORD = "correct horse battery"
WAIT = "wait=20"
"""For the header Prefer: respond once the order is settled."""


@dataclass(frozen=True)
class ApiClient:
    """Calls the API, with an access token or without."""

    http: httpx.AsyncClient
    token: str = ""
    user_id: int = 0
    email: str = ""

    async def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request; bytes are sent as they are, any other body as JSON."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        if body is None:
            content = {}
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return await self.http.request(method, path, headers={**own, **(headers or {})}, **content)

    async def get(self, path: str, **query: object) -> Json:
        """The body of a GET that succeeds."""
        response = await self.call("GET", str(httpx.URL(path, params=query)) if query else path)
        assert response.status_code == httpx.codes.OK, response.text
        return dict(response.json())

    async def post(self, path: str, body: object = None, status: int = 201, **headers: str) -> Json:
        """The body of a POST that succeeds; `headers` with _ in place of -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.call("POST", path, body, named)
        assert response.status_code == status, response.text
        return dict(response.json()) if response.content else {}

    async def register(self) -> "ApiClient":
        """The client of a new customer."""
        account = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "name": "Ada"}
        user = await self.post("/v1/auth/register", account)
        return await self.log_in(account["email"], PASSWORD, user["id"])

    async def log_in(self, email: str, password: str, user_id: int = 0) -> "ApiClient":
        """The client of this user."""
        tokens = await self.post(
            "/v1/auth/login", {"email": email, "password": password}, status=200
        )
        return replace(self, token=tokens["access_token"], user_id=user_id, email=email)

    async def create_product(
        self, stock: int = 100, price: str = "12.50", name: str = "thing"
    ) -> int:
        """The id of a new product; for administrators."""
        body = {"name": name, "price": price, "stock": stock}
        return int((await self.post("/v1/products", body))["id"])

    async def place_order(self, product_id: int, quantity: int = 1, **headers: str) -> Json:
        """A new order, settled if that is possible in time."""
        body = {"items": [{"product_id": product_id, "quantity": quantity}]}
        return await self.post("/v1/orders", body, 201, Prefer=WAIT, **headers)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a complete problem document, which exposes nothing internal."""
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    for internal in ("Traceback", 'File "', ".py", "sqlalchemy", "asyncpg", "grpc"):
        assert internal not in response.text
    return response.status_code, document["code"]
