"""Accounts over HTTP: single-use refresh tokens, changes of role, rate limits."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from tests.support.api_client import PASSWORD, ApiClient, Json, problem
from tests.support.system import System


async def _tokens(caller: ApiClient) -> Json:
    body = {"email": caller.email, "password": PASSWORD}
    return await caller.post("/v1/auth/login", body, status=200)


async def _is_refused(caller: ApiClient, path: str, refresh_token: str) -> None:
    response = await caller.call("POST", path, {"refresh_token": refresh_token})
    assert problem(response) == (401, "invalid_refresh_token")


async def _refreshed(caller: ApiClient, refresh_token: str) -> str:
    body = {"refresh_token": refresh_token}
    response = await caller.post("/v1/auth/refresh", body, status=200)
    renewed = replace(caller, token=response["access_token"])
    assert (await renewed.get("/v1/users/me"))["id"] == caller.user_id
    return str(response["refresh_token"])


async def test_a_refresh_token_can_be_used_once_and_its_reuse_revokes_its_family(
    system: System, customer: ApiClient
) -> None:
    first = (await _tokens(customer))["refresh_token"]
    second = await _refreshed(customer, first)
    third = await _refreshed(customer, second)
    assert len({first, second, third}) == 3
    before = await system.contents()
    await _is_refused(customer, "/v1/auth/refresh", first)
    after = await system.contents()
    # Its tokens are revoked, and nothing else changes.
    tokens = before["users"].pop("refresh_tokens"), after["users"].pop("refresh_tokens")
    assert tokens[0][0] == tokens[1][0]
    assert after == before
    async with system.unchanged():
        await _is_refused(customer, "/v1/auth/refresh", second)
    await _is_refused(customer, "/v1/auth/refresh", third)


async def test_the_reuse_of_a_refresh_token_does_not_end_other_logins(customer: ApiClient) -> None:
    first, second = (await _tokens(customer), await _tokens(customer))
    await _refreshed(customer, first["refresh_token"])
    await _is_refused(customer, "/v1/auth/refresh", first["refresh_token"])
    await _refreshed(customer, second["refresh_token"])


async def test_a_refresh_token_sent_ten_times_at_once_succeeds_once(customer: ApiClient) -> None:
    body = {"refresh_token": (await _tokens(customer))["refresh_token"]}
    responses = await asyncio.gather(
        *(customer.call("POST", "/v1/auth/refresh", body) for _ in range(10))
    )
    assert sorted(response.status_code for response in responses) == [200] + [401] * 9


async def test_after_logout_the_refresh_token_is_invalid(customer: ApiClient) -> None:
    first = (await _tokens(customer))["refresh_token"]
    second = await _refreshed(customer, first)
    response = await customer.call("POST", "/v1/auth/logout", {"refresh_token": second})
    assert (response.status_code, response.content) == (204, b"")
    await _is_refused(customer, "/v1/auth/refresh", second)


async def test_passwords_and_refresh_tokens_are_stored_as_hashes_and_never_logged(
    system: System, customer: ApiClient
) -> None:
    token = (await _tokens(customer))["refresh_token"]
    for table in ("users", "refresh_tokens"):
        stored = str(await system.users.rows(f"SELECT t::text FROM {table} AS t"))
        assert token not in stored
        assert token.encode().hex() not in stored
        assert PASSWORD not in stored
    environment = system.environment
    secrets = {token, PASSWORD, environment["JWT_SECRET"], environment["ADMIN_PASSWORD"]}
    for service in ("api_gateway", "user_service", "postgres"):
        assert not any(secret in system.log(service) for secret in secrets)


async def test_a_revoked_role_ends_before_its_token_expires(
    system: System, customer: ApiClient, admin: ApiClient
) -> None:
    set_role = "UPDATE users SET role = $2 WHERE id = $1"
    await system.users.rows(set_role, customer.user_id, "ADMIN")
    boss = await customer.log_in(customer.email, PASSWORD, customer.user_id)
    order = await admin.place_order(await boss.create_product())
    assert (await boss.get(f"/v1/orders/{order['id']}"))["id"] == order["id"]

    await system.users.rows(set_role, customer.user_id, "CUSTOMER")

    async with system.unchanged():
        body = {"name": "thing", "price": 1, "stock": 1}
        response = await boss.call("POST", "/v1/products", body)
        assert problem(response) == (403, "forbidden")
        response = await boss.call("GET", f"/v1/orders/{order['id']}")
        assert problem(response) == (404, "not_found")
        assert (await boss.get("/v1/orders"))["orders"] == []


async def test_a_granted_role_needs_a_new_token(system: System, customer: ApiClient) -> None:
    await system.users.rows("UPDATE users SET role = 'ADMIN' WHERE id = $1", customer.user_id)
    body = {"name": "thing", "price": 1, "stock": 1}
    response = await customer.call("POST", "/v1/products", body)
    assert problem(response) == (403, "forbidden")
    await (await customer.log_in(customer.email, PASSWORD)).create_product()


async def test_a_deactivated_account_can_neither_order_nor_log_in(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    tokens = await _tokens(customer)
    await system.users.rows("UPDATE users SET active = false WHERE id = $1", customer.user_id)
    async with system.unchanged():
        body = {"items": [{"product_id": product, "quantity": 1}]}
        assert problem(await customer.call("POST", "/v1/orders", body)) == (403, "forbidden")
        login = {"email": customer.email, "password": PASSWORD}
        response = await customer.call("POST", "/v1/auth/login", login)
        assert problem(response) == (401, "invalid_credentials")
        await _is_refused(customer, "/v1/auth/refresh", tokens["refresh_token"])


@pytest.mark.parametrize("path", ["/v1/auth/login", "/register"])
async def test_too_many_attempts_from_one_address_are_rate_limited(
    system: System, customer: ApiClient, path: str
) -> None:
    body = {"email": customer.email, "password": PASSWORD, "name": "Ada"}
    async with (
        system.another_gateway(LOGIN_RATE="3/minute") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        tried = [(await client.post(path, json=body)).status_code for _ in range(3)]
        async with system.unchanged():
            response = await client.post(path, json=body)
    assert tried == [409 if "register" in path else 200] * 3
    assert problem(response) == (429, "rate_limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 120


async def test_too_many_wrong_passwords_are_rate_limited_for_that_account_only(
    system: System, anonymous: ApiClient, customer: ApiClient
) -> None:
    other = await anonymous.register()
    wrong = {"email": customer.email, "password": "a wrong one"}
    async with (
        system.another_gateway(LOGIN_FAILURE_RATE="3/minute") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        responses = [await client.post("/v1/auth/login", json=wrong) for _ in range(4)]
        assert [response.status_code for response in responses] == [401, 401, 401, 429]
        assert int(responses[-1].headers["Retry-After"]) >= 1
        right = {"email": customer.email, "password": PASSWORD}
        assert (await client.post("/v1/auth/login", json=right)).status_code == 429
        theirs = {"email": other.email, "password": PASSWORD}
        assert (await client.post("/v1/auth/login", json=theirs)).status_code == 200
