"""TLS in front of a server that has none: neither Redis 8 nor Valkey 9 has it in their wheels."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PIECE = 65_536
_A_HANDSHAKE = b"\x16"


@dataclass(frozen=True)
class Certificates:
    """Files: an authority's certificate, and one that it gave to 127.0.0.1 with its key."""

    authority: Path
    server: Path

    def context(self, ciphers: str | None = None) -> ssl.SSLContext:
        """The server's certificate; with `ciphers` by TLS 1.2 and these alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if ciphers is not None:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
        return context


def certificates(folder: Path) -> Certificates:
    """Write new ones into the folder."""
    key, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("tests' authority", key, "tests' authority", key, is_authority=True)
    server = _certificate("127.0.0.1", own, "tests' authority", key, is_authority=False)
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    private = own.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(server.public_bytes(pem) + private)
    return Certificates(folder / "authority.pem", folder / "server.pem")


@asynccontextmanager
async def tls_in_front(
    target: int, given: Certificates, port: int = 0, ciphers: str | None = None
) -> AsyncIterator[int]:
    """The port behind which this local port is reached by TLS, and without it as before."""
    context, loop = given.context(ciphers), asyncio.get_running_loop()
    carried: set[asyncio.Task[None]] = set()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)

        async def accept() -> None:
            while True:
                taken, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(_carry(taken, target, context))
                carried.add(task)
                task.add_done_callback(carried.discard)

        accepting = asyncio.create_task(accept())
        try:
            yield listener.getsockname()[1]
        finally:
            for task in (accepting, *carried):
                task.cancel()
            await asyncio.gather(accepting, *carried, return_exceptions=True)


async def _carry(taken: socket.socket, target: int, context: ssl.SSLContext) -> None:
    taken.setblocking(False)
    loop = asyncio.get_running_loop()
    with taken:
        first = b""
        while not first:
            await asyncio.sleep(0.001)
            try:
                first = taken.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not first:
                return
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, taken.dup(), ssl=context if first == _A_HANDSHAKE else None
        )
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    behind, to_behind = await asyncio.open_connection("127.0.0.1", target)
    ways = [_copy(reader, to_behind), _copy(behind, writer)]
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        transport.abort()
        to_behind.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: str,
    signing: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        built = built.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return built.sign(signing, hashes.SHA256())
