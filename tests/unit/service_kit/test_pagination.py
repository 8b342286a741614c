"""Page sizes and page tokens."""

import uuid
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import Code, InvalidArgument
from service_kit.pagination import (
    decode_int_token,
    decode_token,
    decode_uuid_token,
    encode_token,
    page_size,
    split_page,
)

INT64 = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(("requested", "size"), [(0, 20), (1, 1), (100, 100), (10**9, 100)])
def test_a_page_has_20_entries_unless_asked_and_100_at_most(requested: int, size: int) -> None:
    assert page_size(requested) == size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as error:
        page_size(-1)
    assert error.value.reason == "INVALID_PAGE_SIZE"


def test_no_token_means_the_first_page() -> None:
    assert decode_token("") is None
    assert decode_int_token("") is None
    assert decode_uuid_token("") is None


@given(INT64)
def test_a_token_decodes_to_its_number(key: int) -> None:
    assert decode_int_token(encode_token(key)) == key


@given(st.uuids())
def test_a_token_decodes_to_its_uuid(key: uuid.UUID) -> None:
    assert decode_token(encode_token(key)) == str(key)
    assert decode_uuid_token(encode_token(key)) == key


@given(INT64 | st.uuids() | st.text(min_size=1))
def test_a_token_is_safe_in_a_url(key: object) -> None:
    token = encode_token(key)
    assert token.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "a",
        "=",
        "MTI\n",
        "ä",
        "MQ==MQ",
        encode_token("-1"),
        encode_token("+1"),
        encode_token("1_0"),
        encode_token(" 1"),
        encode_token("1.0"),
        encode_token("٣"),
        encode_token(2**63),
        encode_token("9" * 5_000),
        encode_token("x"),
        "_w",
    ],
)
def test_a_token_that_no_list_returned_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        decode_int_token(token)
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(
    "token", ["!", encode_token(7), encode_token("nonsense"), encode_token(uuid.UUID(int=7)) + "MQ"]
)
def test_a_token_without_a_uuid_is_refused_where_keys_are_uuids(token: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        decode_uuid_token(token)
    assert error.value.reason == "INVALID_PAGE_TOKEN"


@given(st.text())
def test_any_text_is_a_token_or_refused(token: str) -> None:
    with suppress(InvalidArgument):
        key = decode_int_token(token)
        assert key is None or 0 <= key < 2**63
    with suppress(InvalidArgument):
        found = decode_uuid_token(token)
        assert found is None or isinstance(found, uuid.UUID)


@given(st.sets(INT64).map(sorted), st.integers(1, 5))
def test_pages_that_follow_their_tokens_have_each_row_once(keys: list[int], size: int) -> None:
    found: list[int] = []
    after: int | None = -1
    while after is not None:
        rows = [key for key in keys if key > after][: size + 1]
        page, token = split_page(rows, size, lambda key: key)
        assert len(page) <= size
        found += page
        after = decode_int_token(token)
    assert found == keys


def test_a_full_last_page_has_no_next_page() -> None:
    assert split_page([1, 2], 2, lambda key: key) == ([1, 2], "")


def test_the_next_page_follows_the_last_row_by_its_key() -> None:
    rows = [("a", 7), ("b", 8), ("c", 9)]
    page, token = split_page(rows, 2, lambda row: row[1])
    assert page == [("a", 7), ("b", 8)]
    assert decode_int_token(token) == 8


def test_a_list_without_rows_is_one_empty_page() -> None:
    assert split_page([], 2, lambda key: key) == ([], "")
