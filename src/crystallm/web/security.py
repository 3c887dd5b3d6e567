"""What is let in, and what every answer carries. Knows HTTP; refuses to know what is asked for.

- A request names a host of this server (a page of somebody else's name that points here is refused), has a
  body of a bounded size that comes in bounded time, as JSON where it changes something (no form of another
  site can send that), and a key where the server has keys.
- An answer forbids scripts, styles and frames from anywhere else, and any script within a page.
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
    from crystallm.web.rate_limits import Limits

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]


LOCAL = ("localhost", "127.0.0.1", "[::1]")

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

_OPEN = ("/healthz", "/api/v1/about", "/api/v1/openapi.json")

_LONGEST_PATH = 4000

_LARGEST_HEAD = 32_768


class ApiKeys:
    """Keys of those who may use the API; kept as digests.

    Args:
        keys: none for a server that is open to all who reach it.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fits(self, header: str) -> bool:
        """Whether an `Authorization` header holds one of them."""
        kind, _, key = header.partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        # All are compared, so that the time tells nothing.
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        return kind.lower() == "bearer" and any(found)


class Guard:
    """An ASGI application before another one; see the module.

    Args:
        inner: what it guards.
        limits: of bodies.
        metrics: where answers are counted.
        hosts: names under which the server is reached; none for any.
        keys: of those who may use the API.
    """

    def __init__(
        self, inner: Application, limits: Limits, metrics: Metrics, hosts: Iterable[str], keys: ApiKeys
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
            return  # there are no web sockets here

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"])
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present),
                ]
            await send(message)

        if refusal := self._refusal(scope):
            await _refuse(sealed, *refusal)
            return
        if scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self._inner(scope, receive, sealed)
            return
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self._limits.body_seconds)
        except TimeoutError:
            await _refuse(sealed, 408, f"the body did not come within {self._limits.body_seconds:g} s")
            return
        except ConnectionError:
            return
        if body is None:
            await _refuse(sealed, 413, f"the body is larger than {self._limits.body:,} bytes")
            return
        given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await self._inner(scope, again, sealed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request is not let in, seen from its head alone."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        path = scope["path"]
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            return 421, "this server does not go by that name: start it with --hosts to add one"
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_PATH:
            return 414, f"an address of more than {_LONGEST_PATH} characters"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _LARGEST_HEAD:
            return 431, f"headers of more than {_LARGEST_HEAD:,} bytes"
        guarded = (path.startswith("/api/") or path == "/metrics") and path not in _OPEN
        if self._keys and guarded and not self._keys.fits(headers.get("authorization", "")):
            return 401, "this server asks for a key: send the header Authorization: Bearer KEY"
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "send JSON, with the header Content-Type: application/json"
            length = headers.get("content-length", "0")
            if not length.isascii() or not length.isdecimal():
                return 400, "the header Content-Length is no number"
            if len(length) > 15 or int(length) > self._limits.body:
                return 413, f"the body is larger than {self._limits.body:,} bytes"
        return None

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if it is too large."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError(scope["path"])
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)

    def _count(self, scope: Scope, status: int) -> None:
        kind = "api" if scope["path"].startswith("/api/") else "page"
        self._metrics.count("requests", "Answers by status.", status=str(status), kind=kind)


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "field": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413, 431):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
