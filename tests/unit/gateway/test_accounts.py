"""Accounts, tokens and permissions."""

from proto import user_pb2
from tests.unit.gateway.backend import ADMIN_ID, PASSWORD, Shop, running_shop
from tests.unit.gateway.checks import assert_json, assert_problem, exchange


async def test_a_user_registers_logs_in_and_out(shop: Shop) -> None:
    account = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    for path, taken in (("/v1/auth/register", "/register"), ("/register", "/v1/auth/register")):
        account["email"] = f"{path.count('/')}@example.com"
        user = assert_json(await shop.client.post(path, json=account), 201, "User")
        assert user["role"] == "customer"
        assert_problem(await shop.client.post(taken, json=account), 409, "email_taken")
    for path in ("/v1/auth/login", "/login"):
        tokens = assert_json(await shop.client.post(path, json=account), 200, "TokenPair")
        assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
        bearer = {"Authorization": f"bearer {tokens['access_token']}"}
        me = assert_json(await shop.client.get("/v1/users/me", headers=bearer), 200, "User")
        assert me["email"] == account["email"]
    for token, status in (("first", 200), ("used", 401)):
        body = {"refresh_token": token}
        refreshed = await shop.client.post("/v1/auth/refresh", json=body)
        assert refreshed.status_code == status
        out = await shop.client.post("/v1/auth/logout", json=body)
        assert out.status_code == {200: 204, 401: 401}[status]
    assert_problem(refreshed, 401, "invalid_refresh_token")


async def test_wrong_passwords_are_refused_and_then_limited() -> None:
    async with running_shop(login_failure_rate="2/day") as shop:
        wrong = {"email": "ada@example.com", "password": "wrong"}
        for _ in range(2):
            response = await shop.client.post("/login", json=wrong)
            assert_problem(response, 401, "invalid_credentials")
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        response = await shop.client.post("/v1/auth/login", json=wrong)
        assert_problem(response, 429, "rate_limited")
        assert int(response.headers["Retry-After"]) >= 1


async def test_only_an_administrators_token_opens_an_operation_for_administrators(
    shop: Shop,
) -> None:
    adjustment = {"delta": 1, "reason": "found one"}
    path = "/v1/products/1/stock-adjustments"
    anonymous = await shop.client.post(path, json=adjustment)
    assert_problem(anonymous, 401, "unauthenticated")
    assert "error=" not in anonymous.headers["WWW-Authenticate"]
    forged = await shop.client.post(path, json=adjustment, headers={"Authorization": "Bearer x"})
    assert_problem(forged, 401, "unauthenticated")
    assert 'error="invalid_token"' in forged.headers["WWW-Authenticate"]
    customer = await shop.client.post(path, json=adjustment, headers=shop.bearer())
    assert assert_problem(customer, 403, "forbidden")["detail"] == "Administrator role required."
    admin = await shop.client.post(path, json=adjustment, headers=shop.bearer(ADMIN_ID))
    assert assert_json(admin, 201, "Stock") == {"product_id": 1, "stock": 11}


async def test_an_administrator_who_loses_the_role_is_refused_at_once(shop: Shop) -> None:
    headers = shop.bearer(ADMIN_ID)
    new = {"name": "Phone", "price": 1, "stock": 1}
    assert_json(await shop.client.post("/v1/products", json=new, headers=headers), 201, "Product")
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_CUSTOMER
    as_customer = await shop.client.post("/v1/products", json=new, headers=headers)
    assert_problem(as_customer, 403, "forbidden")
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_ADMIN
    shop.users.users[ADMIN_ID].active = False
    inactive = await shop.client.post("/v1/products", json=new, headers=headers)
    assert_problem(inactive, 403, "forbidden")


async def test_a_token_that_is_not_text_is_an_invalid_token(shop: Shop) -> None:
    response = await exchange(
        shop,
        b"GET /v1/users/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Authorization: Bearer \xff.\xff.\xff\r\nX-Request-Id: \xff\r\nTraceparent: \xff\r\n\r\n",
    )
    assert response.startswith(b"HTTP/1.1 401 ")


async def test_the_forwarded_address_counts_only_from_trusted_proxies() -> None:
    async def try_from(shop: Shop, forwarded: str) -> int:
        wrong = {"email": "ada@example.com", "password": "wrong"}
        headers = {"X-Forwarded-For": forwarded}
        return (await shop.client.post("/login", json=wrong, headers=headers)).status_code

    async with running_shop(login_rate="1/day", trusted_proxy_hops=1) as shop:
        assert [await try_from(shop, f"1.1.1.1, 2.2.2.{n}") for n in (1, 2, 2)] == [401, 401, 429]
    async with running_shop(login_rate="1/day") as shop:
        assert [await try_from(shop, f"2.2.2.{n}") for n in (1, 2)] == [401, 429]
