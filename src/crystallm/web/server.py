"""The state of a server: services, jobs, limits, keys and metrics. Does not depend on its routes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.version import __version__
from crystallm.web import formula_check
from crystallm.web.jobs.queue import JobQueue
from crystallm.web.jobs.runner import run_job
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from crystallm.web.rate_limits import Slots, client_network
from crystallm.web.security import ApiKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi import Request

    from crystallm.models.model import Model
    from crystallm.web.jobs.store import JobStore

_LOG = logging.getLogger(__name__)


class Server:
    """All that a server holds; `app.create_app` makes its application.

    Args:
        hosts: host names under which it is reached; none for any.
        check_workers: processes that check crystals; None for half the cores.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        store: JobStore,
        *,
        energy_models: Sequence[str] = (),
        limits: ServerLimits | None = None,
        hosts: Iterable[str] = (),
        keys: Iterable[str] = (),
        check_workers: int | None = None,
        energy_workers: int = 1,
        batch_size: int = 32,
    ) -> None:
        self.limits = limits or ServerLimits()
        self.hosts = tuple(hosts)
        self.keys = ApiKeys(keys)
        self.metrics = Metrics()
        self.services = JobServices(
            models,
            energy_models,
            self.limits,
            self.metrics,
            check_workers=check_workers,
            energy_workers=energy_workers,
            batch_size=batch_size,
        )
        self.jobs = JobQueue(store, self.limits, self.metrics, partial(run_job, self.services))
        self.streams = Slots(self.limits.max_streams, self.limits.max_streams_per_address)
        self.files = Slots(self.limits.max_files)
        self._warned_of_proxy = False
        self._add_gauges()

    def about(self) -> dict[str, Any]:
        """Return what clients need to know: models, limits, elements, space groups."""
        limits = self.limits
        return {
            "version": __version__,
            "models": [
                {
                    "name": name,
                    "language": model.language.name,
                    "parameters": model.network.num_parameters(),
                    "summary": str(model.card.get("summary", "")),
                    "conditions": [asdict(scale) for scale in model.config.condition_scales],
                }
                for name, model in self.services.models.items()
            ],
            "energies": self.services.energy_models,
            "search": bool(self.services.energy_models),
            "keys": bool(self.keys),
            "limits": {
                "samples": limits.max_samples,
                "atoms": limits.max_cell_atoms,
                "structures": limits.max_structures,
                "simulations": limits.max_simulations,
                "candidates": limits.max_candidates,
                "body": limits.max_body_bytes,
                "per_address": limits.max_jobs_per_address,
            },
            "elements": formula_check.element_facts(),
            "space_groups": formula_check.space_group_facts(),
        }

    def require_network(self) -> None:
        """Raise a CrystallmError if the network cannot sample any more."""
        if self.services.broken:
            raise CrystallmError("the network cannot sample any more: restart the server")

    def address_of(self, request: Request) -> str:
        """Return the client network of a request; warn once if that is a proxy which is not trusted."""
        host = request.client.host if request.client is not None else ""
        forwarded = request.headers.get("x-forwarded-for", "")
        if forwarded and host not in forwarded and not self._warned_of_proxy:
            self._warned_of_proxy = True
            _LOG.warning(
                "the proxy at %s is not trusted, so that all its clients count as one address: start with "
                "--trusted-proxies %s",
                host,
                host,
            )
        return client_network(host)

    def _add_gauges(self) -> None:
        engines = self.services.engines.values()
        add = self.metrics.add_gauge
        add("jobs_running", "Running jobs.", lambda: self.jobs.n_running)
        add("jobs_waiting", "Jobs in the queue.", lambda: self.jobs.n_waiting)
        add("sequences_in_batch", "Sequences being sampled.", lambda: sum(e.n_in_batch for e in engines))
        add("sequences_sampled", "Sequences since the start.", lambda: sum(e.n_finished for e in engines))
        add("tokens_sampled", "Tokens since the start.", lambda: sum(e.n_tokens for e in engines))
        add("streams", "Clients that follow jobs.", lambda: self.streams.n_taken)
