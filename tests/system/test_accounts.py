"""Accounts over HTTP: tokens that serve once, roles that end at once, and too many tries."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from tests.support.system import System
from tests.system.shop import PASSWORD, Caller, Json, problem


async def _tokens(caller: Caller) -> Json:
    body = {"email": caller.email, "password": PASSWORD}
    return await caller.post("/v1/auth/login", body, status=200)


async def _is_refused(caller: Caller, path: str, refresh_token: str) -> None:
    answer = await caller.call("POST", path, {"refresh_token": refresh_token})
    assert problem(answer) == (401, "invalid_refresh_token")


async def _refreshed(caller: Caller, refresh_token: str) -> str:
    body = {"refresh_token": refresh_token}
    answer = await caller.post("/v1/auth/refresh", body, status=200)
    renewed = replace(caller, token=answer["access_token"])
    assert (await renewed.get("/v1/users/me"))["id"] == caller.user_id
    return str(answer["refresh_token"])


async def test_a_refresh_token_serves_once_and_reuse_ends_its_family(
    system: System, customer: Caller
) -> None:
    first = (await _tokens(customer))["refresh_token"]
    second = await _refreshed(customer, first)
    third = await _refreshed(customer, second)
    assert len({first, second, third}) == 3
    before = await system.contents()
    await _is_refused(customer, "/v1/auth/refresh", first)
    after = await system.contents()
    # Its tokens are revoked, and nothing else is changed.
    tokens = before["users"].pop("refresh_tokens"), after["users"].pop("refresh_tokens")
    assert tokens[0][0] == tokens[1][0]
    assert after == before
    async with system.unchanged():
        await _is_refused(customer, "/v1/auth/refresh", second)
    await _is_refused(customer, "/v1/auth/refresh", third)


async def test_the_reuse_of_one_logins_token_spares_the_other_logins(customer: Caller) -> None:
    mine, elsewhere = (await _tokens(customer), await _tokens(customer))
    await _refreshed(customer, mine["refresh_token"])
    await _is_refused(customer, "/v1/auth/refresh", mine["refresh_token"])
    await _refreshed(customer, elsewhere["refresh_token"])


async def test_a_refresh_token_presented_ten_times_at_once_serves_once(customer: Caller) -> None:
    body = {"refresh_token": (await _tokens(customer))["refresh_token"]}
    answers = await asyncio.gather(
        *(customer.call("POST", "/v1/auth/refresh", body) for _ in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9


async def test_after_logout_nothing_can_be_refreshed(customer: Caller) -> None:
    first = (await _tokens(customer))["refresh_token"]
    second = await _refreshed(customer, first)
    answer = await customer.call("POST", "/v1/auth/logout", {"refresh_token": second})
    assert (answer.status_code, answer.content) == (204, b"")
    await _is_refused(customer, "/v1/auth/refresh", second)


async def test_passwords_and_refresh_tokens_are_stored_as_hashes_and_never_logged(
    system: System, customer: Caller
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


async def test_a_role_that_was_taken_away_ends_while_the_token_lives(
    system: System, customer: Caller, admin: Caller
) -> None:
    set_role = "UPDATE users SET role = $2 WHERE id = $1"
    await system.users.rows(set_role, customer.user_id, "ADMIN")
    boss = await customer.logged_in(customer.email, PASSWORD, customer.user_id)
    order = await admin.order(await boss.product())
    assert (await boss.get(f"/v1/orders/{order['id']}"))["id"] == order["id"]

    await system.users.rows(set_role, customer.user_id, "CUSTOMER")

    async with system.unchanged():
        body = {"name": "thing", "price": 1, "stock": 1}
        answer = await boss.call("POST", "/v1/products", body)
        assert problem(answer) == (403, "forbidden")
        answer = await boss.call("GET", f"/v1/orders/{order['id']}")
        assert problem(answer) == (404, "not_found")
        assert (await boss.get("/v1/orders"))["orders"] == []


async def test_a_role_that_was_given_needs_a_new_token(system: System, customer: Caller) -> None:
    await system.users.rows("UPDATE users SET role = 'ADMIN' WHERE id = $1", customer.user_id)
    body = {"name": "thing", "price": 1, "stock": 1}
    answer = await customer.call("POST", "/v1/products", body)
    assert problem(answer) == (403, "forbidden")
    await (await customer.logged_in(customer.email, PASSWORD)).product()


async def test_a_closed_account_neither_orders_nor_logs_in(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product()
    tokens = await _tokens(customer)
    await system.users.rows("UPDATE users SET active = false WHERE id = $1", customer.user_id)
    async with system.unchanged():
        body = {"items": [{"product_id": product, "quantity": 1}]}
        assert problem(await customer.call("POST", "/v1/orders", body)) == (403, "forbidden")
        login = {"email": customer.email, "password": PASSWORD}
        answer = await customer.call("POST", "/v1/auth/login", login)
        assert problem(answer) == (401, "invalid_credentials")
        await _is_refused(customer, "/v1/auth/refresh", tokens["refresh_token"])


@pytest.mark.parametrize("path", ["/v1/auth/login", "/register"])
async def test_too_many_tries_are_put_off(system: System, customer: Caller, path: str) -> None:
    body = {"email": customer.email, "password": PASSWORD, "name": "Ada"}
    async with (
        system.another_gateway(LOGIN_RATE="3/minute") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        tried = [(await client.post(path, json=body)).status_code for _ in range(3)]
        async with system.unchanged():
            answer = await client.post(path, json=body)
    assert tried == [409 if "register" in path else 200] * 3
    assert problem(answer) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120


async def test_too_many_wrong_passwords_are_put_off_for_that_account_only(
    system: System, nobody: Caller, customer: Caller
) -> None:
    other = await nobody.registered()
    wrong = {"email": customer.email, "password": "a wrong one"}
    async with (
        system.another_gateway(LOGIN_FAILURE_RATE="3/minute") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        answers = [await client.post("/v1/auth/login", json=wrong) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        right = {"email": customer.email, "password": PASSWORD}
        assert (await client.post("/v1/auth/login", json=right)).status_code == 429
        theirs = {"email": other.email, "password": PASSWORD}
        assert (await client.post("/v1/auth/login", json=theirs)).status_code == 200
