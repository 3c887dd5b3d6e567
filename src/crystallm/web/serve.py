"""Load what a server needs, and run it until it is stopped."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from crystallm.energy import registry
from crystallm.errors import CrystallmError, InputError
from crystallm.storage.files import locked
from crystallm.web.app import create_app
from crystallm.web.jobs.store import JobStore
from crystallm.web.options import ServeOptions, ServerLimits
from crystallm.web.security import LOCAL_HOSTS
from crystallm.web.server import Server

if TYPE_CHECKING:
    import socket

    from crystallm.models.model import Model

DEFAULT_ENERGY_MODELS = ("chgnet", "sevennet")
"""Energy models that are offered where they are installed."""

MIN_KEY_LENGTH = 16
WORK_FILES = 256
"""Open files that are kept for work: pipes to processes, results, weights."""
ALL_INTERFACES = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not the default


def serve(options: ServeOptions, limits: ServerLimits, *, on_start: Callable[[str], None]) -> None:
    """Serve page and API until Ctrl-C.

    Args:
        on_start: called with the address before the server listens.

    Raises:
        InputError: an option is wrong.
        CrystallmError: the port is taken, another server uses the folder, or the network cannot sample any
            more.
    """
    keys, proxies = read_keys(options.keys), trusted_proxies(options.trusted_proxies)
    energy_models = offered_energy_models(options.energy_models)
    store = JobStore(options.out)
    with locked(options.out / "jobs"):  # whose unfinished jobs would else be taken for interrupted ones
        server = Server(
            load_models(split_names(options.models), options.device),
            store,
            energy_models=energy_models,
            limits=limits,
            hosts=host_names(options.host, options.hosts),
            keys=keys,
            check_workers=options.check_workers,
            batch_size=options.batch_size,
        )
        address = f"{_url_host(options.host)}:{options.port}"
        on_start(f"http://{address}/")
        config = uvicorn.Config(
            create_app(server),
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            timeout_graceful_shutdown=5,
            http=type("LimitedConnection", (Connection,), {"limits": limits}),
            backlog=WORK_FILES // 2,  # accepted at once, before they are counted
            h11_max_incomplete_event_size=32_768,
            ws="none",
        )
        _run(StoppingServer(config, server), server, address)


class Connection(H11Protocol):
    """A connection that counts, and is closed where no head of a request arrives in time."""

    limits: ServerLimits
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close a connection that is one too many."""
        super().connection_made(transport)
        if len(self.connections) > min(self.limits.max_connections, _spare_files()):
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take data of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.limits.body_timeout, self._close_late)

    def _close_late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _spare_files() -> float:
    """Return how many files this process may open beside those that work needs."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if most == resource.RLIM_INFINITY else max(most - WORK_FILES, most // 2)


class StoppingServer(uvicorn.Server):
    """Interrupts its jobs before it waits for its clients, which follow them for as long as they run."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop everything."""
        await self._server.jobs.close()
        # The engine ends after its step, which may compile kernels: clients hear of the end meanwhile.
        await asyncio.to_thread(self._server.services.close)
        await super().shutdown(sockets)


def _run(running: uvicorn.Server, server: Server, address: str) -> None:
    server.services.on_broken = lambda: setattr(running, "should_exit", True)
    taken = CrystallmError(f"cannot listen at {address}: is another program there? Take another --port")
    try:
        running.run()
    except SystemExit:
        raise taken from None
    finally:
        server.services.close()
    if not running.started:
        raise taken
    if server.services.broken:  # an error, so that a supervisor restarts the server
        raise CrystallmError(f"the network cannot sample any more: {server.services.broken}")


def load_models(names: Sequence[str], device: str) -> dict[str, Model]:
    """Load models, by their own names; InputError if two have the same."""
    import torch

    from crystallm.models.load import load_model

    # Checks take the other cores; beside them, many threads are slower than one.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    models: dict[str, Model] = {}
    for name in names:
        model = load_model(name, device=device)
        if model.name in models:
            raise InputError(f"models: two are named {model.name!r}: rename the folder of one")
        models[model.name] = model
    return models


def split_names(names: str | None) -> list[str]:
    """Return names that are separated by commas."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def trusted_proxies(names: str | None) -> list[str]:
    """Return addresses and networks of trusted proxies; InputError if a name is neither."""
    proxies = split_names(names)
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            message = f"trusted_proxies: {proxy!r} is not an address: write 10.0.0.2 or 172.16.0.0/12"
            raise InputError(message) from None
    return proxies


def read_keys(path: Path | None) -> list[str]:
    """Read API keys, one a line; lines that start with # are comments.

    Raises:
        InputError: the file has no key, or a short one.
    """
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"the keys in {str(path)!r} cannot be read: {error}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise InputError(f"{str(path)!r} has no key: write one a line, or leave --keys out")
    if (shortest := min(map(len, keys))) < MIN_KEY_LENGTH:
        raise InputError(f"{str(path)!r} has a key of {shortest} characters: write at least {MIN_KEY_LENGTH}")
    return keys


def offered_energy_models(names: str | None) -> list[str]:
    """Return the names of energy models: `installed` stands for the default ones that are, None for none.

    Raises:
        CrystallmError: a named one does not exist or is not installed.
    """
    if names != "installed":
        models = split_names(names)
        for name in models:
            registry.require(name)
        return models
    installed = []
    for name in DEFAULT_ENERGY_MODELS:
        try:
            registry.require(name)
        except CrystallmError:
            continue
        installed.append(name)
    return installed


def host_names(host: str, names: str | None) -> list[str]:
    """Return the accepted host names; none for any, if the server listens at all interfaces without names."""
    more = split_names(names)
    if host in ALL_INTERFACES and not more:
        return []
    return [*LOCAL_HOSTS, _url_host(host), *more]


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
