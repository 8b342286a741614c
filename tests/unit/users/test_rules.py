"""What addresses, names, passwords and settings the user service accepts."""

import asyncio
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import InvalidArgument, ResourceExhausted
from service_kit.settings import SettingsError, load
from user_service.domain import MAX_EMAIL, canonical_email, valid_email, valid_name
from user_service.passwords import NICENESS, Passwords, Verification, check_password
from user_service.settings import Settings

DATABASE_URL = "postgresql+asyncpg://postgres@localhost/users"
CHEAP = {"time_cost": 1, "memory_cost": 16, "parallelism": 1}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace@Example.COM\n", "ada.lovelace@example.com"),
        ("ada+shop@localhost", "ada+shop@localhost"),
        ("ÉMILE@exemple.fr", "émile@exemple.fr"),
        ("E\u0301MILE@exemple.fr", "émile@exemple.fr"),
        ("o'brien_1@sub.example.co.uk", "o'brien_1@sub.example.co.uk"),
        ("a" * (MAX_EMAIL - 4) + "@b.c", "a" * (MAX_EMAIL - 4) + "@b.c"),
    ],
)
def test_an_address_is_stored_trimmed_composed_and_in_lower_case(written: str, stored: str) -> None:
    assert valid_email(written) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "ada",
        "@example.com",
        "ada@",
        "ada@@example.com",
        "ada@b@example.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada lovelace@example.com",
        "ada@exam\tple.com",
        "ada@exam\u00a0ple.com",
        "ada\0@example.com",
        "ada\x7f@example.com",
        "ada\u202emoc@example.com",
        "a" * (MAX_EMAIL - 3) + "@b.c",
        "İ" * 200 + "@example.com",  # fits, but not in lower case
        "a" * 1_000_000,
    ],
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    assert canonical_email(text) is None
    with pytest.raises(InvalidArgument) as refusal:
        valid_email(text)
    assert (refusal.value.reason, refusal.value.metadata) == ("INVALID_EMAIL", {"field": "email"})
    assert refusal.value.message == "The e-mail address is invalid."


@given(st.text(), st.text())
def test_a_canonical_address_is_its_own_canonical_form(local: str, domain: str) -> None:
    address = canonical_email(f"{local}@{domain}")
    assert address is None or canonical_email(address) == address


@given(st.from_regex(r"[A-Za-z0-9._+-]{1,40}@[A-Za-z0-9-]{1,40}\.[A-Za-z]{2,10}", fullmatch=True))
def test_addresses_that_differ_in_case_are_the_same(text: str) -> None:
    assert canonical_email(text.upper()) == canonical_email(text.lower()) == text.lower()


@pytest.mark.parametrize(
    "text", ["A", " Ada Lovelace ", "Ñ" * 100, "李", "\u0645\u06cc\u200c\u0646"]
)
def test_a_name_is_kept_without_the_spaces_around_it(text: str) -> None:
    assert valid_name(text) == text.strip()


@pytest.mark.parametrize("text", ["", "  ", "A" * 101, "A\nB", "A\0B", "A\x1b[31mB", "A\u2028B"])
def test_a_name_that_is_empty_long_or_has_control_characters_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        valid_name(text)
    assert (refusal.value.reason, refusal.value.metadata) == ("INVALID_NAME", {"field": "name"})


@pytest.mark.parametrize("password", ["a" * 10, "a" * 128, "пароль-пароль", "🐎" * 10, " " * 10])
def test_a_password_of_10_to_128_characters_is_accepted(password: str) -> None:
    check_password(password)


@pytest.mark.parametrize("password", ["", "a" * 9, "a" * 129, "🐎" * 9, "0123456789\0"])
def test_a_password_that_breaks_the_rules_is_refused_without_repeating_it(password: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_password(password)
    assert refusal.value.reason == "INVALID_PASSWORD"
    assert refusal.value.metadata == {"field": "password"}
    assert not password or password not in refusal.value.message


async def test_only_the_password_that_was_hashed_matches() -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        stored = await passwords.hash("correct horse")
        assert stored.startswith("$argon2id$v=19$m=16,t=1,p=1$")
        assert (await passwords.verify("correct horse", stored)).matches
        assert not (await passwords.verify("Correct horse", stored)).matches
        assert not (await passwords.verify("correct horse" + "!" * 128, stored)).matches


async def test_the_same_password_is_hashed_differently_each_time() -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_nothing_matches_where_there_is_no_hash() -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        assert not (await passwords.verify("correct horse", None)).matches


async def test_a_password_matches_however_its_accents_were_typed() -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        stored = await passwords.hash("caf\u00e9 au lait")
        assert (await passwords.verify("cafe\u0301 au lait", stored)).matches


@pytest.mark.parametrize(
    "changed", [{"time_cost": 2}, {"memory_cost": 32}, {"memory_cost": 8}, {"parallelism": 2}]
)
async def test_a_hash_with_other_parameters_is_replaced_once_its_password_matches(
    changed: dict[str, int],
) -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as before:
        stored = await before.hash("correct horse")
        assert (await before.verify("correct horse", stored)).new_hash is None
    with Passwords(**{**CHEAP, **changed}, workers=1, queue=0) as after:
        assert (await after.verify("wrong horse", stored)) == Verification(matches=False)
        renewed = (await after.verify("correct horse", stored)).new_hash
        assert renewed is not None
        assert (await after.verify("correct horse", renewed)) == Verification(matches=True)


async def test_passwords_beyond_the_queue_are_refused_at_once() -> None:
    with Passwords(**CHEAP, workers=1, queue=2) as passwords:
        results = await asyncio.gather(
            *(passwords.hash("correct horse") for _ in range(5)), return_exceptions=True
        )
        reasons = [getattr(result, "reason", "hashed") for result in results]
        assert reasons == ["hashed"] * 3 + ["OVERLOADED"] * 2
        assert await passwords.hash("correct horse")


async def test_hashing_has_a_lower_priority_than_requests() -> None:
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        hashing = await passwords._run(
            lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        )
    assert hashing == min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)


async def test_a_cancelled_caller_leaves_the_queue_and_its_password_is_not_hashed() -> None:
    hashed: list[str] = []
    released = threading.Event()
    with Passwords(**CHEAP, workers=1, queue=0) as passwords:
        passwords._hasher.hash = hashed.append
        passwords._pool.submit(released.wait)
        impatient = asyncio.create_task(passwords.hash("impatient one"))
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted):
            await passwords.hash("no room for me")
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        patient = asyncio.create_task(passwords.hash("patient one"))
        await asyncio.sleep(0)
        released.set()
        await patient
    assert hashed == ["patient one"]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("USER_DATABASE_URL", DATABASE_URL)


def test_only_the_database_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(Settings)
    assert settings.user_service_port == 50052
    assert settings.refresh_token_lifetime.days == 30
    assert (settings.admin_email, settings.admin_password) == (None, None)
    monkeypatch.delenv("USER_DATABASE_URL")
    with pytest.raises(SettingsError, match="USER_DATABASE_URL"):
        load(Settings)


def test_an_administrator_is_an_address_in_canonical_form_and_a_hidden_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADMIN_EMAIL", " Root@Example.com")
    monkeypatch.setenv("ADMIN_PASSWORD", "correct horse")
    settings = load(Settings)
    assert settings.admin_email == "root@example.com"
    assert settings.admin_password is not None
    assert settings.admin_password.get_secret_value() == "correct horse"
    assert "correct horse" not in repr(settings)


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_EMAIL", "")
    monkeypatch.setenv("ADMIN_PASSWORD", "")
    assert load(Settings).admin_email is None


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ADMIN_EMAIL": "root@example.com"}, ["ADMIN_PASSWORD"]),
        ({"ADMIN_PASSWORD": "correct horse"}, ["ADMIN_PASSWORD"]),
        ({"ADMIN_EMAIL": "root", "ADMIN_PASSWORD": "short"}, ["ADMIN_EMAIL", "ADMIN_PASSWORD"]),
        ({"PASSWORD_HASH_MEMORY_COST": "15", "PASSWORD_HASH_PARALLELISM": "2"}, ["MEMORY_COST"]),
        (
            {"PASSWORD_HASH_TIME_COST": "0", "PASSWORD_HASH_WORKERS": "0"},
            ["PASSWORD_HASH_TIME_COST", "PASSWORD_HASH_WORKERS"],
        ),
    ],
)
def test_wrong_settings_are_all_named_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load(Settings)
    assert [name for name in named if name not in str(error.value)] == []
    assert variables.get("ADMIN_PASSWORD", "no password") not in str(error.value)
