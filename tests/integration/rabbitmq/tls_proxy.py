"""A proxy in front of the broker that terminates TLS, or damages what the broker sends."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Change = Callable[[bytes], bytes]


def unchanged(chunk: bytes) -> bytes:
    return chunk


@asynccontextmanager
async def behind_proxy(
    url: str, *, from_broker: Change = unchanged, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The URL of a proxy to the broker at `url`; `from_broker` may change what the broker sends."""
    login = urlsplit(url)

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change
    ) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while chunk := await reader.read(65536):
                writer.write(change(chunk))
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(login.hostname, login.port)
        await asyncio.gather(
            pump(reader, broker_writer, unchanged), pump(broker_reader, writer, from_broker)
        )

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        place = f"{login.username}:{login.password}@127.0.0.1:{port}"
        yield urlunsplit(("amqps" if tls else "amqp", place, login.path, "", ""))


@asynccontextmanager
async def behind_tls(url: str, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """An amqps URL of the broker at `url`, and its certificate, which signs itself."""
    certificate_file, key_file = folder / "broker.crt", folder / "broker.key"
    _write_certificate(certificate_file, key_file)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate_file, key_file)
    async with behind_proxy(url, tls=tls) as secure_url:
        yield secure_url, certificate_file


def _write_certificate(certificate_file: Path, key_file: Path) -> None:
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
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
