"""`crystallm serve`: the page and the API."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.cli.option_groups import BatchSize, ConfigFile, Device, merged, whole
from crystallm.errors import CrystallmError, InputError, install

if TYPE_CHECKING:
    from crystallm.models.model import Model


OFFERED = ("chgnet", "sevennet")
"""Energy models that are offered where they are installed."""

LOOPBACK = ("127.0.0.1", "::1")

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not taken by default


def serve(
    *,
    host: Annotated[
        str | None, Parameter(help="Address to listen at (127.0.0.1: this machine alone).")
    ] = None,
    port: Annotated[int | None, Parameter(help="Port (8000).")] = None,
    models: Annotated[
        str | None, Parameter(help="Models that are offered: names or paths, with commas (default).")
    ] = None,
    energies: Annotated[
        str | None,
        Parameter(help="Energy models that are offered, with commas; none for none (those installed)."),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder in which jobs and results are kept (out/serve).")
    ] = None,
    hosts: Annotated[
        str | None, Parameter(help="Names under which it is reached, with commas (localhost alone).")
    ] = None,
    keys: Annotated[
        Path | None, Parameter(help="File of API keys, one a line; without it, all who reach it may ask.")
    ] = None,
    behind_proxy: Annotated[
        bool | None,
        Parameter(negative=(), help="Take clients' addresses from a reverse proxy on this machine."),
    ] = None,
    proxies: Annotated[
        str | None,
        Parameter(help="The same from proxies elsewhere: addresses or networks, with commas (none)."),
    ] = None,
    limits: Annotated[
        str | None, Parameter(help="Bounds: samples=100,atoms=200,per_address=16,...; see docs/serve.md.")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    judges: Annotated[int | None, Parameter(help="Processes that judge crystals (half the cores).")] = None,
    config: ConfigFile = None,
) -> None:
    """Serve a page where one types a formula and sees crystals, and the same as an API.

    crystallm serve --port 8000

    Needs pip install 'crystallm[web]'. Nothing leaves the machine, and only this machine is served unless
    --host says otherwise. Results are kept under --out for a week; a restart loses none.
    """
    flags = {
        "host": host, "port": port, "models": models, "energies": energies, "out": out, "hosts": hosts,
        "keys": keys, "behind_proxy": behind_proxy, "proxies": proxies, "limits": limits,
        "device": device, "batch_size": batch_size, "judges": judges,
    }  # fmt: skip
    options = merged(config, flags)
    try:
        import uvicorn

        from crystallm.web.app import create_app
        from crystallm.web.server import Server
    except ImportError as error:
        raise CrystallmError(f"the page needs {error.name}: {install('web')}") from None
    from crystallm.options import validated
    from crystallm.web.jobs.store import JobStore
    from crystallm.web.rate_limits import ServerLimits

    where, at = str(options.get("host", "127.0.0.1")), _port(options.get("port", 8000))
    bounds = validated(ServerLimits, _limits(options.get("limits")))
    known_keys = _keys(options.get("keys"))
    trusted = _proxies(behind=bool(options.get("behind_proxy", False)), value=options.get("proxies"))
    offered = _energies(options.get("energies"))
    store = JobStore(Path(str(options.get("out", "out/serve"))))
    loaded = _models(_listed(options.get("models", "default")), str(options.get("device", "auto")))
    n_judges = options.get("judges")
    server = Server(
        loaded,
        store,
        energy_models=offered,
        limits=bounds,
        hosts=_hosts(where, options.get("hosts")),
        keys=known_keys,
        check_workers=None if n_judges is None else whole("judges", n_judges, 1),
        batch_size=whole("batch_size", options.get("batch_size"), 32),
    )
    shown = f"[{where}]" if ":" in where else where
    sys.stderr.write(f"crystallm: http://{shown}:{at}/ (Ctrl-C ends it)\n")
    running = uvicorn.Server(
        uvicorn.Config(
            create_app(server),
            host=where,
            port=at,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted),
            forwarded_allow_ips=trusted,
            timeout_graceful_shutdown=5,
            http="h11",  # the bound on heads below is that of this one
            h11_max_incomplete_event_size=32_768,
            ws="none",
        )
    )
    server.services.on_broken = lambda: setattr(running, "should_exit", True)
    try:
        running.run()
    except SystemExit:
        raise CrystallmError(
            f"cannot listen at {shown}:{at}: is another program there? Take another --port"
        ) from None
    finally:
        server.services.close()
    if not running.started:
        raise CrystallmError(f"cannot listen at {shown}:{at}: is another program there? Take another --port")
    if server.services.broken:  # told by the exit status as well, so that a supervisor starts it anew
        raise CrystallmError(f"the network cannot sample any more: {server.services.broken}")


def _models(names: list[str], device: str) -> dict[str, Model]:
    """The models, loaded, by name."""
    import torch

    from crystallm.models.load import load_model

    # The processes that judge take the other cores; beside them, many threads are slower than one.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    loaded: dict[str, Any] = {}
    for name in names:
        model = load_model(name, device=device)
        if model.name in loaded:
            raise InputError(f"models: two are named {model.name!r}: rename the folder of one")
        loaded[model.name] = model
    return loaded


def _listed(value: Any) -> list[str]:
    """Names of an option: with commas, or a list in a file."""
    names = value if isinstance(value, list) else str(value).split(",")
    return [str(name).strip() for name in names if str(name).strip()]


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**16:
        raise InputError(f"port = {value!r}: write a whole number from 1 to 65535")
    return value


def _limits(value: Any) -> dict[str, Any]:
    """Bounds as `name=value,...`, or a mapping in a file."""
    import yaml

    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    pairs = [part.partition("=") for part in _listed(value)]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise InputError(f"limits: {wrong[0]!r} has no value: write samples=100,atoms=200")
    return {name.strip(): yaml.safe_load(number) for name, _, number in pairs}


def _proxies(*, behind: bool, value: Any) -> list[str]:
    """Addresses and networks of the proxies that are believed; none where there is none."""
    import ipaddress

    named = [] if value is None else _listed(value)
    for one in named:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            raise InputError(
                f"proxies: {one!r} is no address: write such as 10.0.0.2 or 172.16.0.0/12"
            ) from None
    return [*(LOOPBACK if behind else ()), *named]


def _keys(path: Any) -> list[str]:
    """The keys of a file."""
    if path is None:
        return []
    try:
        lines = Path(str(path)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"the keys in {str(path)!r} cannot be read: {error}") from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise InputError(f"{str(path)!r} holds no key: write one a line, or leave --keys out")
    if short := [key for key in found if len(key) < 16]:
        raise InputError(f"a key of {len(short[0])} characters in {str(path)!r}: 16 are the least")
    return found


def _energies(value: Any) -> list[str]:
    """The energy models that are offered."""
    from crystallm.energy import registry as models

    if value is None:
        found = []
        for name in OFFERED:
            try:
                models.require(name)
            except CrystallmError:
                continue
            found.append(name)
        return found
    names = _listed(value)
    if names == ["none"]:
        return []
    for name in names:
        models.require(name)
    return names


def _hosts(where: str, value: Any) -> list[str]:
    """Names under which the server is reached; none for any."""
    from crystallm.web.security import LOCAL_HOSTS

    named = [] if value is None else _listed(value)
    if where in EVERYWHERE and not named:
        return []  # whoever listens everywhere, and does not say under which names, is reached by any
    own = f"[{where}]" if ":" in where else where
    return [*LOCAL_HOSTS, own, *named]
