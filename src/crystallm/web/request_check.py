"""Checks of a request before it becomes a job, and its defaults."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError
from crystallm.generation.conditions import check_conditions, parse_conditions
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, with_default_z
from crystallm.web import formula_check, schemas
from crystallm.web.formula_check import FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.web.jobs.services import JobServices
    from crystallm.web.options import ServerLimits
    from crystallm.web.schemas import GenerateRequest, JobRequest, SearchRequest, SolveRequest


def check_request(services: JobServices, request: JobRequest) -> dict[str, Any]:
    """Return a request as plain values, its defaults filled in and a seed drawn.

    Raises:
        FieldError: a field is wrong or beyond a limit of the server.
    """
    limits = services.limits
    record = request.model_dump()
    if isinstance(request, schemas.GenerateRequest | schemas.SearchRequest):
        _check_sampling(services, request)
        record["model"] = request.model or next(iter(services.models))
        record["z"] = with_default_z(Request(formula=request.formula, z=request.z)).z
        record["n"] = request.n or limits.max_samples
        if request.seed is None:
            record["seed"] = secrets.randbelow(schemas.MAX_SEED + 1)
    elif isinstance(request, schemas.SolveRequest):
        _check_pattern(services, request)
        record["model"] = request.model or next(iter(services.models))
        record["seed"] = request.seed or 0
    elif (n := len(request.structures)) > limits.max_structures:
        raise FieldError("structures", f"{n} structures: a job may have at most {limits.max_structures}")
    if isinstance(request, schemas.SearchRequest) and request.simulations > limits.max_simulations:
        message = f"simulations = {request.simulations}: a search may have at most {limits.max_simulations}"
        raise FieldError("simulations", message)
    if not isinstance(request, schemas.EvaluateRequest | schemas.SolveRequest):
        needed = isinstance(request, schemas.RelaxRequest | schemas.SearchRequest)
        record["energy"] = check_energy_model(services.energy_models, request.energy, needed=needed)
    if isinstance(request, schemas.GenerateRequest) and request.relax and request.energy is None:
        raise FieldError("relax", "relaxation needs an energy model: choose one")
    return record


def check_energy_model(offered: Sequence[str], name: str | None, *, needed: bool) -> str | None:
    """Return the energy model of a request; the first one if it needs one and names none.

    Raises:
        FieldError: it is not offered.
    """
    if name is None and not needed:
        return None
    if not offered:
        raise FieldError("energy", "this server offers no energy model")
    if name is None:
        return offered[0]
    if name not in offered:
        raise FieldError("energy", f"no energy model {name!r}: there are {', '.join(offered)}")
    return name


def generation_request(request: GenerateRequest | SearchRequest) -> Request:
    """Return what to generate, as the packages below take it."""
    values: dict[str, Any] = {"formula": request.formula, "z": request.z}
    if request.space_group is not None:
        values["space_group"] = str(request.space_group)
    if isinstance(request, schemas.GenerateRequest):
        values |= {
            name: getattr(request, name) for name in ("elements", "allow_fewer_elements", "conditions", "n")
        }
    return Request.build(values)


def _check_sampling(services: JobServices, request: GenerateRequest | SearchRequest) -> None:
    limits = services.limits
    if request.n is not None and request.n > limits.max_samples:
        raise FieldError("n", f"n = {request.n}: a job may have at most {limits.max_samples} crystals")
    _check_model(services, request.model)
    if isinstance(request, schemas.GenerateRequest) and request.conditions:
        _check_conditions(services, request)
    if isinstance(request, schemas.GenerateRequest) and (
        request.formula is None or request.elements is not None
    ):
        _check_open_formula(request, limits)
    elif request.formula is not None:
        formula_check.read(request.formula, request.z, request.space_group, limits.max_cell_atoms)


def _check_conditions(services: JobServices, request: GenerateRequest) -> None:
    if request.crystals_from in ("references", "both"):
        raise FieldError("crystals_from", "known crystals follow no conditions: choose the network")
    try:
        check_conditions(services.model(request.model), parse_conditions(request.conditions))
    except InputError as error:
        raise FieldError("conditions", str(error)) from None


def _check_model(services: JobServices, name: str | None) -> None:
    if name is not None and name not in services.models:
        raise FieldError("model", f"no model {name!r}: there are {', '.join(services.models)}")


def _check_pattern(services: JobServices, request: SolveRequest) -> None:
    """Check a request for the crystal of a pattern; the pattern itself is read by its job."""
    limits = services.limits
    if request.candidates > limits.max_candidates:
        message = f"candidates = {request.candidates}: a pattern may have at most {limits.max_candidates}"
        raise FieldError("candidates", message)
    _check_model(services, request.model)
    for formula in request.formula.split(","):
        formula_check.read(formula.strip(), request.z, request.space_group, limits.max_cell_atoms)


def _check_open_formula(request: GenerateRequest, limits: ServerLimits) -> None:
    """Check a request without a formula."""
    if request.elements is None and request.space_group is None and not request.conditions:
        raise FieldError("formula", "write a formula, such as TiO2, or elements, such as Li-Fe-O")
    try:
        interpret(generation_request(request), max_atoms=limits.max_cell_atoms)
    except InputError as error:
        field = "space_group" if request.elements is None else "elements"
        raise FieldError(field, str(error)) from None
