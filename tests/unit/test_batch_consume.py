"""Deliveries taken out of the stream: each message whole and in order, all else untouched."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

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

    async def feed(self, chunks: Sequence[bytes]) -> None:
        """Let the chunks arrive, then the end."""
        reader = DeliveryReader(asyncio.get_running_loop())
        reader.takers[OURS] = Taker(NO_CHANNEL, self.messages.append)
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        self.passed = await reader.read()

    @property
    def delivered(self) -> list[Delivered]:
        """Delivery tag, routing key, body and headers of each message."""
        return [
            (m.delivery_tag or 0, m.routing_key or "", m.body, m.header.properties.headers or {})
            for m in self.messages
        ]


def fed(chunks: Sequence[bytes]) -> Incoming:
    incoming = Incoming()
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
    others = [
        marshal(Basic.Ack(7, multiple=True), OTHERS),
        HEARTBEAT,
        *deliver(99, b"not ours", OTHERS, 3),
        marshal(Basic.CancelOk("ours"), OURS),
        marshal(Channel.Close(404, "gone", 60, 20), OURS),
    ]
    # Frames of a message may have those of other channels between them, and none of their own.
    for each, at in zip(others[:-2], between, strict=False):
        frames.insert(at, each)
    inserted = [frame for frame in frames if frame in others]
    frames += others[-2:]
    incoming = fed(cut(b"".join(frames), places))
    assert incoming.delivered == [
        (tag, "order.created", body, {"x-request-id": f"r{tag}"}) for tag, body in enumerate(bodies)
    ]
    expected = b"".join(inserted + others[-2:])
    assert incoming.passed.replace(HEARTBEAT, b"") == expected.replace(HEARTBEAT, b"")


def test_a_broker_that_only_delivers_counts_as_alive() -> None:
    incoming = fed(deliver(1, b"one", OURS, 10))
    assert incoming.passed == HEARTBEAT


def test_a_broker_that_speaks_another_protocol_is_heard_word_for_word() -> None:
    incoming = fed([b"AMQP", b"\0\0\x09\x01", b"and more"])
    assert incoming.passed == b"AMQP\0\0\x09\x01and more"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_cannot_be_read_is_left_to_the_client_with_all_that_follows(number: int) -> None:
    frames = deliver(2, b"two", OURS, 10)
    frames[number] = frames[number][:-1] + b"!"
    rest = [*frames[number:], *deliver(3, b"three", OURS, 10)]
    incoming = fed([*deliver(1, b"one", OURS, 10), *frames[:number], *rest])
    assert [tag for tag, *_ in incoming.delivered] == [1]
    assert incoming.passed == HEARTBEAT + b"".join(rest)


def test_a_frame_cut_off_by_the_end_is_passed_on_as_it_is() -> None:
    frames = deliver(1, b"one", OURS, 10)
    incoming = fed([*frames[:2], frames[2][:-4]])
    assert incoming.delivered == []
    assert incoming.passed.endswith(frames[2][:-4])
