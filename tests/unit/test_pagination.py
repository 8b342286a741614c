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
    encode_token,
    page_size,
)

INT64 = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(("requested", "given_size"), [(0, 20), (1, 1), (100, 100), (10**9, 100)])
def test_a_page_has_20_entries_unless_asked_and_100_at_most(
    requested: int, given_size: int
) -> None:
    assert page_size(requested) == given_size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_size(-1)
    assert refused.value.reason == "INVALID_PAGE_SIZE"


def test_no_token_means_the_first_page() -> None:
    assert decode_token("") is None
    assert decode_int_token("") is None


@given(INT64)
def test_a_token_gives_back_its_number(key: int) -> None:
    assert decode_int_token(encode_token(key)) == key


@given(st.uuids())
def test_a_token_gives_back_its_uuid(key: uuid.UUID) -> None:
    assert decode_token(encode_token(key)) == str(key)


@given(INT64 | st.uuids() | st.text(min_size=1))
def test_a_token_can_stand_in_a_url_as_it_is(key: object) -> None:
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
def test_a_token_that_no_list_gave_out_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        decode_int_token(token)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@given(st.text())
def test_a_text_is_a_token_or_refused(token: str) -> None:
    with suppress(InvalidArgument):
        key = decode_int_token(token)
        assert key is None or 0 <= key < 2**63
