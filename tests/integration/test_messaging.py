"""The connection to the broker: consuming in bulk, and through TLS."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest
from aiormq.abc import DeliveredMessage
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from service_kit.batch_consume import BulkConnection

from service_kit.errors import Unavailable
from service_kit.rabbitmq.connection import keep_connected, open_connection
from tests.support.infrastructure import Broker
from tests.support.waiting import eventually

BODIES = [b"", b"small", b"of several frames" * 20_000, b"last"]


async def consumed(url: str, bodies: list[bytes]) -> list[bytes]:
    """What arrives of messages published to a queue of its own."""
    arrived: list[DeliveredMessage] = []

    async def session(connection: BulkConnection) -> None:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await connection.consume(await channel.get_underlay_channel(), queue.name, arrived.append)
        for body in bodies:
            await channel.default_exchange.publish(aio_pika.Message(body), queue.name)
        await eventually(lambda: _count(arrived), lambda found: found == len(bodies))

    await keep_connected(url, "test", session)
    assert [message.delivery_tag for message in arrived] == list(range(1, len(bodies) + 1))
    return [message.body for message in arrived]


async def _count(arrived: list[DeliveredMessage]) -> int:
    return len(arrived)


@asynccontextmanager
async def behind_tls(url: str, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """An amqps URL of the broker at `url`, and the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "broker.crt", folder / "broker.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate_file, key_file)
    login = urlsplit(url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(login.hostname, login.port)
        await asyncio.gather(pump(reader, broker_writer), pump(broker_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        place = f"{login.username}:{login.password}@127.0.0.1:{port}"
        yield urlunsplit(("amqps", place, login.path, "", "")), certificate_file


async def test_messages_of_any_size_arrive_whole_and_in_order(broker: Broker) -> None:
    assert await consumed(broker.url, BODIES) == BODIES


async def test_messages_arrive_through_tls_if_the_brokers_certificate_is_trusted(
    broker: Broker, tmp_path: Path
) -> None:
    async with behind_tls(broker.url, tmp_path) as (url, certificate):
        assert await consumed(f"{url}?cafile={certificate}", BODIES) == BODIES


async def test_a_broker_whose_certificate_nobody_vouches_for_is_not_talked_to(
    broker: Broker, tmp_path: Path
) -> None:
    async with behind_tls(broker.url, tmp_path) as (url, _):
        with pytest.raises(Unavailable, match="certificate verify failed"):
            async with open_connection(url, "test"):
                pass
