"""Rate limits: against guessing, without locking the owner out."""

import pytest

from api_gateway.problems import Problem
from api_gateway.rate_limits import RateLimits
from service_kit.errors import Unauthenticated, Unavailable
from user_service.domain import canonical_email

HOME, ATTACKER = "192.0.2.1", "198.51.100.9"
OWNER = "ada@example.com"


async def attempt(limits: RateLimits, address: str, email: str, *, right: bool = False) -> str:
    """The result of a login: "in", "wrong" or "limited"."""
    wrong = Unauthenticated("INVALID_CREDENTIALS", "wrong")
    try:
        async with limits.login_attempt(address, email):
            if not right:
                raise wrong
    except Unauthenticated:
        return "wrong"
    except Problem as problem:
        refused = problem.status == 429 and int(problem.headers["Retry-After"]) >= 1
        return "limited" if refused else repr(problem)
    return "in"


async def test_wrong_passwords_for_an_account_from_an_address_are_limited() -> None:
    limits = RateLimits("100/day", "3/day", "100/hour")
    results = [await attempt(limits, HOME, OWNER) for _ in range(5)]
    assert results == ["wrong", "wrong", "wrong", "limited", "limited"]
    assert await attempt(limits, HOME, OWNER, right=True) == "limited"


@pytest.mark.parametrize("other", [OWNER.upper(), f" {OWNER} ", "zoe\u0301@example.com"])
async def test_another_spelling_of_an_e_mail_is_the_same_account(other: str) -> None:
    owner = canonical_email(other)
    assert owner
    assert owner != other
    limits = RateLimits("100/day", "2/day", "100/hour")
    await attempt(limits, HOME, owner)
    await attempt(limits, HOME, other)
    assert await attempt(limits, HOME, owner) == "limited"


async def test_registrations_for_one_e_mail_are_limited_from_all_addresses_together() -> None:
    limits = RateLimits("2/day", "100/day", "100/hour")
    await limits.count_registration("198.51.100.1", OWNER)
    await limits.count_registration("198.51.100.2", OWNER.upper())
    with pytest.raises(Problem) as refused:
        await limits.count_registration("198.51.100.3", OWNER)
    assert refused.value.status == 429
    await limits.count_registration("198.51.100.3", "another@example.com")


async def test_a_right_password_resets_the_failures() -> None:
    limits = RateLimits("100/day", "3/day", "100/hour")
    for _ in range(5):
        await attempt(limits, HOME, OWNER)
        assert await attempt(limits, HOME, OWNER, right=True) == "in"


async def test_an_attacker_elsewhere_does_not_lock_the_owner_out() -> None:
    limits = RateLimits("1000/day", "5/day", "10/hour")
    assert await attempt(limits, HOME, OWNER, right=True) == "in"
    for number in range(30):
        await attempt(limits, f"198.51.100.{number}", OWNER)
    assert await attempt(limits, "203.0.113.1", OWNER) == "limited"
    assert await attempt(limits, HOME, OWNER, right=True) == "in"


async def test_guesses_from_many_addresses_count_together() -> None:
    limits = RateLimits("1000/day", "5/day", "10/hour")
    results = [await attempt(limits, f"198.51.100.{number}", OWNER) for number in range(12)]
    assert results.count("wrong") == 10
    assert results[-1] == "limited"


async def test_attempts_from_one_address_are_limited_over_all_accounts() -> None:
    limits = RateLimits("4/day", "5/day", "10/hour")
    results = [await attempt(limits, ATTACKER, f"user{number}@x.y") for number in range(6)]
    assert results == ["wrong"] * 4 + ["limited"] * 2
    assert await attempt(limits, HOME, "user0@x.y", right=True) == "in"


async def test_a_network_of_ipv6_addresses_is_one_client() -> None:
    limits = RateLimits("3/day", "5/day", "10/hour")
    results = [await attempt(limits, f"2001:db8:1:2::{n:x}", f"u{n}@x.y") for n in range(1, 6)]
    assert results == ["wrong"] * 3 + ["limited"] * 2
    assert await attempt(limits, "2001:db8:1:3::1", OWNER) == "wrong"


async def test_a_server_failure_does_not_count_against_the_account() -> None:
    limits = RateLimits("100/day", "50/day", "2/hour")
    for _ in range(5):
        with pytest.raises(Unavailable):
            async with limits.login_attempt(HOME, OWNER):
                raise Unavailable("UNAVAILABLE", "Unavailable.")
    assert await attempt(limits, ATTACKER, OWNER, right=True) == "in"


async def test_registrations_from_an_address_are_limited() -> None:
    limits = RateLimits("2/day", "5/day", "10/hour")
    for number, address in enumerate((HOME, HOME, ATTACKER)):
        await limits.count_registration(address, f"{number}@example.com")
    with pytest.raises(Problem, match="Too many attempts"):
        await limits.count_registration(HOME, "3@example.com")
