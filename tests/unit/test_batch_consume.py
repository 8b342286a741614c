"""Deliveries taken out of the stream: each message whole and in order, all else untouched."""

import asyncio
import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import InvalidFrameError
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from service_kit import batch_consume
from service_kit.batch_consume import DeliveryReader, Taker

OURS, OTHERS = 1, 2
NO_CHANNEL = cast("AbstractChannel", None)
HEARTBEAT = marshal(Heartbeat(), 0)

Delivered = tuple[int, str, bytes, dict[str, Any]]


def deliver(tag: int, body: bytes, channel: int, largest: int) -> list[bytes]:
    """The frames of a message as a broker sends them, `largest` bytes of body in each."""
    properties = Basic.Properties(message_id=str(tag), headers={"x-request-id": f"r{tag}"})
    frames = [
        marshal(
            Basic.Deliver("ours", tag, exchange="order.events", routing_key="order.created"),
            channel,
        ),
        marshal(ContentHeader(0, len(body), properties), channel),
    ]
    starts = range(0, len(body), largest)
    return frames + [marshal(ContentBody(body[at : at + largest]), channel) for at in starts]


class Incoming:
    """A reader with a taker on OURS, and what either got of the chunks that arrived."""

    def __init__(self) -> None:
        self.messages: list[DeliveredMessage] = []
        self.passed = b""
        self.failure: Exception | None = None

    async def feed(self, chunks: Sequence[bytes]) -> None:
        """Let the chunks arrive, then the end, of which asyncio tells twice."""
        reader = DeliveryReader(asyncio.get_running_loop())
        reader.takers[OURS] = Taker(NO_CHANNEL, self.messages.append)
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        reader.feed_eof()
        self.failure = reader.exception()
        self.passed = b"" if self.failure else await reader.read()

    @property
    def delivered(self) -> list[Delivered]:
        """Delivery tag, routing key, body and headers of each message."""
        return [
            (m.delivery_tag or 0, m.routing_key or "", m.body, m.header.properties.headers or {})
            for m in self.messages
        ]


def fed(chunks: Sequence[bytes], alive_seconds: float = 0) -> Incoming:
    incoming = Incoming()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_consume, "_ALIVE_SECONDS", alive_seconds)
        asyncio.run(incoming.feed(chunks))
    return incoming


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, as TCP may bring it."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(
    bodies=st.lists(st.binary(max_size=40), max_size=5),
    largest=st.integers(1, 20),
    between=st.lists(st.integers(0, 30), max_size=10),
    places=st.lists(st.integers(0, 2000), max_size=10),
)
@example(bodies=[b"", b"a" * 40], largest=40, between=[1, 4], places=list(range(0, 300, 7)))
def test_messages_arrive_whole_and_in_order_however_the_stream_is_cut(
    bodies: list[bytes], largest: int, between: list[int], places: list[int]
) -> None:
    frames = [f for tag, body in enumerate(bodies) for f in deliver(tag, body, OURS, largest)]
    # Frames of a message may have those of other channels between them, and none of their own.
    others = [marshal(Basic.Ack(7, multiple=True), OTHERS), HEARTBEAT]
    others += deliver(99, b"not ours", OTHERS, 3)
    for each, at in zip(others, between, strict=False):
        frames.insert(at, each)
    passed = [frame for frame in frames if frame in others]
    returned = [marshal(Basic.Return(312, "NO_ROUTE", "", "ours"), OURS)]
    returned += deliver(98, b"returned", OURS, 3)[1:]
    ending = [*returned, marshal(Basic.CancelOk("ours"), OURS)]
    ending.append(marshal(Channel.Close(404, "gone", 60, 20), OURS))
    incoming = fed(cut(b"".join(frames + ending), places), alive_seconds=math.inf)
    assert incoming.delivered == [
        (tag, "order.created", body, {"x-request-id": f"r{tag}"}) for tag, body in enumerate(bodies)
    ]
    assert incoming.passed == b"".join(passed + ending)


def test_a_broker_that_only_delivers_counts_as_alive_each_second() -> None:
    messages = [b"".join(deliver(tag, b"body", OURS, 10)) for tag in range(3)]
    assert fed(messages).passed == HEARTBEAT * 3
    assert fed(messages, alive_seconds=60).passed == HEARTBEAT


def test_a_frame_of_another_channel_is_not_torn_apart_by_that() -> None:
    message, other = b"".join(deliver(1, b"one", OURS, 10)), marshal(Basic.Ack(7), OTHERS)
    incoming = fed([message + other[:9], other[9:] + message])
    assert incoming.passed == HEARTBEAT + other + HEARTBEAT


def test_a_broker_that_speaks_another_protocol_is_heard_word_for_word() -> None:
    incoming = fed([b"AMQP", b"\0\0\x09\x01", b"and more"])
    assert incoming.passed == b"AMQP\0\0\x09\x01and more"


def without_end(frame: bytes) -> bytes:
    return frame[:-1] + b"!"


def too_deep() -> bytes:
    """A header whose table holds a table, 2,000 times over."""
    table = b""
    for _ in range(2_000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    headers = len(table).to_bytes(4, "big") + table
    payload = b"\0\x3c\0\0" + (3).to_bytes(8, "big") + b"\x20\0" + headers
    return b"\x02\0\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"


METHOD, HEADER, BODY = deliver(2, b"two", OURS, 10)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([without_end(METHOD), HEADER, BODY], id="a method without its end"),
        pytest.param([METHOD, without_end(HEADER), BODY], id="a header without its end"),
        pytest.param([METHOD, HEADER, without_end(BODY)], id="a body without its end"),
        pytest.param([METHOD, too_deep(), BODY], id="a header nested too deep"),
        pytest.param([METHOD, BODY, HEADER], id="a body before its header"),
        pytest.param([METHOD, HEADER, HEADER, BODY], id="two headers"),
        pytest.param([METHOD, HEADER, METHOD, HEADER, BODY], id="a message inside another"),
        pytest.param([METHOD, marshal(Basic.CancelOk("ours"), OURS)], id="another method inside"),
    ],
)
def test_a_delivery_that_cannot_be_read_ends_the_connection_and_nothing_after_it_arrives(
    frames: list[bytes],
) -> None:
    incoming = fed([*deliver(1, b"one", OURS, 10), *frames, *deliver(3, b"three", OURS, 10)])
    assert [tag for tag, *_ in incoming.delivered] == [1]
    assert isinstance(incoming.failure, InvalidFrameError)


def test_a_frame_cut_off_by_the_end_is_passed_on_as_it_is() -> None:
    frames = deliver(1, b"one", OURS, 10)
    incoming = fed([*frames[:2], frames[2][:-4]])
    assert incoming.delivered == []
    assert incoming.passed.endswith(frames[2][:-4])
