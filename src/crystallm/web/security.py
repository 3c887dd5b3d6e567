"""What every request must satisfy, and the headers of every answer. Does not depend on the routes.

- A request names a host of this server (so that a foreign name cannot point here), has a body of bounded size
  that arrives in bounded time, as JSON where it changes something (a form of another site cannot send that),
  and an API key if the server has keys.
- An answer forbids scripts, styles and frames from elsewhere, and inline scripts.

Hosts are checked here and not by Starlette's TrustedHostMiddleware: its answer is not JSON and does not name
the remedy.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from crystallm.web.metrics import Metrics
    from crystallm.web.options import ServerLimits

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_OPEN_PATHS = ("/healthz", "/api/v1/about", "/api/v1/openapi.json")  # need no key
_MAX_PATH = 4000
_MAX_HEADER_BYTES = 32_768


class ApiKeys:
    """API keys, stored as digests; none for a server without keys."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, header: str) -> bool:
        """Whether an `Authorization` header holds one of the keys."""
        scheme, _, key = header.partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        # Compare with all, so that the time does not depend on which one fits.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


class Guard:
    """ASGI application that checks requests before it passes them to `inner`; see the module."""

    def __init__(
        self, inner: Application, limits: ServerLimits, metrics: Metrics, hosts: Iterable[str], keys: ApiKeys
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._metrics = metrics
        self._hosts = {host.lower() for host in hosts}
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return  # no web sockets

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kind = "api" if scope["path"].startswith("/api/") else "page"
                self._metrics.requests.labels(str(message["status"]), kind).inc()
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present),
                ]
            await send(message)

        if rejection := self._rejection(scope):
            await _reject(send_with_headers, *rejection)
            return
        if scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self._inner(scope, receive, send_with_headers)
            return
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self._limits.body_timeout)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.body_timeout:g} s"
            await _reject(send_with_headers, 408, message)
            return
        except ConnectionError:
            return
        if body is None:
            await _reject(send_with_headers, 413, self._too_large())
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body() -> Message:
            return messages.pop() if messages else await receive()

        await self._inner(scope, receive_body, send_with_headers)

    def _rejection(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and message if the head of a request is not acceptable."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        path = scope["path"]
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            return 421, "this server does not have that name: start it with --hosts to add one"
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_PATH:
            return 414, f"the address has more than {_MAX_PATH} characters"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            return 431, f"the headers have more than {_MAX_HEADER_BYTES:,} bytes"
        guarded = (path.startswith("/api/") or path == "/metrics") and path not in _OPEN_PATHS
        if self._keys and guarded and not self._keys.accept(headers.get("authorization", "")):
            return 401, "this server needs a key: send the header Authorization: Bearer KEY"
        if scope["method"] in ("POST", "PUT", "PATCH"):
            return self._body_rejection(headers)
        return None

    def _body_rejection(self, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "send JSON, with the header Content-Type: application/json"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal():
            return 400, "the header Content-Length is not a number"
        if len(length) > 15 or int(length) > self._limits.max_body_bytes:
            return 413, self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the body has more than {self._limits.max_body_bytes:,} bytes"

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body; None if it is too large."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError(scope["path"])
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.max_body_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _reject(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "field": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413, 431):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
