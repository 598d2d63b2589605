"""The policy server: openpi's websocket protocol, with the limits that a machine on a network needs.

On connection, the server sends one binary frame of metadata. Then each binary frame of the client (a request) gets one
binary frame (actions and `server_timing`). An error gets one text frame with the message, and close code 1011.
`GET /healthz` answers OK, `GET /metrics` the counts.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from jepa_mpc.errors import BadObservation, MissingPackage
from jepa_mpc.serving.metrics import Metrics
from jepa_mpc.serving.session import Session
from jepa_mpc.serving.wire import pack, unpack

FAILED, GOING_AWAY, TRY_LATER = 1011, 1001, 1013
OUR_FAULT = "the server failed at this request; its log says why"
WAITING_FRAMES = 4
"""Frames of one client that may be queued on the server; further ones wait at the client."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on clients.

    Args:
        connections: Maximum number of simultaneous clients.
        frame_bytes: Maximum size of a request.

    Raises:
        ValueError: If one is not positive.
    """

    connections: int = 8
    frame_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        if min(self.connections, self.frame_bytes) < 1:
            raise ValueError(f"need connections >= 1 and frame_bytes >= 1, got {self}")


class PolicyServer:
    """Serves one episode per connection; planning runs in worker threads, so the server stays responsive.

    Args:
        begin: Makes the session of a new connection.
        metadata: Sent to every client on connection.
        api_key: Key that a client must send as `Authorization: Api-Key KEY`; None requires none.
        limits: Limits on clients.
        workers: Number of simultaneous searches; further ones wait.
    """

    def __init__(
        self,
        begin: Callable[[], Session],
        metadata: Mapping[str, Any],
        *,
        api_key: str | None = None,
        limits: Limits | None = None,
        workers: int = 1,
    ) -> None:
        self.begin, self.limits, self.metrics = begin, limits or Limits(), Metrics()
        self._greeting = pack(metadata)
        self._header = None if api_key is None else f"Api-Key {api_key}".encode()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="plan")
        self._idle: set[Any] = set()
        self._stopping = False

    async def run(
        self, host: str, port: int, *, stop: asyncio.Event, listening: Callable[[int], None] = lambda port: None
    ) -> None:
        """Serve until `stop` is set; requests in progress are answered before it ends.

        Args:
            host: Address to listen on.
            port: Port, or 0 for any free one.
            stop: Event that ends the server.
            listening: Called with the port once connections are accepted.

        Raises:
            OSError: If the address is not available.
            MissingPackage: If websockets is not installed.
        """
        try:
            from websockets.asyncio.server import serve
        except ImportError as error:
            raise MissingPackage("websockets", "jepa_mpc.serving") from error
        server = await serve(
            self._converse,
            host,
            port,
            process_request=self._look_at,
            compression=None,
            max_size=self.limits.frame_bytes,
            max_queue=WAITING_FRAMES,
        )
        try:
            listening(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
        finally:
            self._stopping = True
            server.close(close_connections=False)
            await asyncio.gather(*(connection.close(GOING_AWAY) for connection in list(self._idle)))
            await server.wait_closed()
            self._pool.shutdown()

    def _look_at(self, connection: Any, request: Any) -> Any:
        """Answer plain HTTP, refuse clients, or accept a client by returning None."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        given = request.headers.get("Authorization", "").encode()
        if self._header is not None and not hmac.compare_digest(given, self._header):
            return self._turn_away(connection, HTTPStatus.UNAUTHORIZED, "a valid API key is needed\n")
        if request.path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.metrics.text())
        if self._stopping or self.metrics.connections >= self.limits.connections:
            return self._turn_away(connection, HTTPStatus.SERVICE_UNAVAILABLE, "no free connection: try again later\n")
        return None

    def _turn_away(self, connection: Any, status: HTTPStatus, why: str) -> Any:
        self.metrics.turned_away += 1
        return connection.respond(status, why)

    async def _converse(self, connection: Any) -> None:
        """Handle one connection from metadata to close."""
        from websockets.exceptions import ConnectionClosed

        if self.metrics.connections >= self.limits.connections:  # several handshakes may finish at once
            return await connection.close(TRY_LATER, "no free connection")
        self.metrics.connections += 1
        self.metrics.accepted += 1
        try:
            await self._answer_all(connection)
        except ConnectionClosed:
            pass  # the client is gone
        except Exception:
            self.metrics.failed += 1
            await connection.send(OUR_FAULT)
            raise  # websockets logs it here and closes with 1011
        finally:
            self.metrics.connections -= 1
            self._idle.discard(connection)

    async def _answer_all(self, connection: Any) -> None:
        session, total_ms = self.begin(), None
        await connection.send(self._greeting)
        while not self._stopping:
            self._idle.add(connection)
            frame = await connection.recv()
            self._idle.discard(connection)
            arrived_s = time.monotonic()
            answer = await self._answer(session, frame, arrived_s, total_ms)
            await connection.send(answer)
            if isinstance(answer, str):
                return await connection.close(FAILED)
            total_ms = 1000 * (time.monotonic() - arrived_s)
        await connection.close(GOING_AWAY)

    async def _answer(
        self, session: Session, frame: bytes | str, arrived_s: float, last_ms: float | None
    ) -> bytes | str:
        """The answer to a request, or the error message."""
        try:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._pool, _think, session, frame, arrived_s, last_ms)
        except ValueError as mistake:
            self.metrics.refused += 1
            return str(mistake)
        self.metrics.count_answer(time.monotonic() - arrived_s)
        return answer


def _think(session: Session, frame: bytes | str, arrived_s: float, last_ms: float | None) -> bytes:
    """Runs in a worker: read the request, plan, pack the answer."""
    if isinstance(frame, str):
        raise BadObservation("expected a binary msgpack frame, got text")
    request = unpack(frame)
    session.admit(request, arrived_s)
    began_s = time.monotonic()
    answer = session.answer(request, waited_s=began_s - arrived_s)
    timing = {"infer_ms": 1000 * (time.monotonic() - began_s)}
    if last_ms is not None:
        timing["prev_total_ms"] = last_ms
    return pack({**answer, "server_timing": timing})
