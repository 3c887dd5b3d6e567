"""From a request to crystals: formula, prompt, rules, sampling. What the command line and Python call.

Knows how the parts fit together, and none of their insides. Writes no files.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crystallm import formula as formulas
from crystallm.errors import CrystallmError, InputError, TextError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crystallm.checkpoint import Model
    from crystallm.crystal import Crystal
    from crystallm.decode import RowState, Rules
    from crystallm.spacegroups import SpaceGroup

Kind = TypeVar("Kind", bound=BaseModel)
MAX_SAMPLES = 1_000_000
"""Crystals of one request, at most."""


_SAMPLING = {"temperature", "top_k", "top_p", "seed", "batch_size", "max_new_tokens"}
"""The settings that `decode.sample` takes as they are."""


class Settings(BaseModel):
    """How to sample. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "default"
    """Name of a bundled model, a folder, or a published `ckpt.pt`."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int | None = Field(default=10, ge=1)
    """Sample from the k likeliest tokens; None for all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sample from the likeliest tokens that together hold this probability; None for all."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """With a sample's number, decides its random stream."""
    constraints: Literal["full", "syntax", "none"] = "full"
    """`full`: only what can still become a crystal with the composition and group that were asked for.
    `syntax`: only what keeps the form of a text. `none`: the network alone. `cif` is written freely."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`, `mps`."""
    batch_size: int = Field(default=32, ge=1)
    """Crystals written at a time."""
    max_new_tokens: int = Field(default=3000, ge=1)
    """A crystal that has so many tokens and no end is left unfinished."""


class Request(BaseModel):
    """What to write. Frozen; refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True
    )

    formula: str | None = None
    """As people write it; None leaves the composition to the network."""
    z: int | None = None
    """Reduced formula units in the conventional cell; None: the cell is as written."""
    space_group: str | None = None
    """Symbol or number; None leaves it to the network."""
    n: int = Field(default=10, ge=1, le=MAX_SAMPLES)
    """Crystals."""
    prompt: str | None = None
    """A beginning of a text, in place of formula and space group."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request understood: what the network will be given.

    Attributes:
        request: as asked.
        cell: what the cell holds, None if that is left to the network.
        space_group: None if that is left to the network.
        note: how the request was read, one line for a person.
    """

    request: Request
    cell: formulas.Cell | None
    space_group: SpaceGroup | None
    note: str


def validated(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Build a Request, Settings, or any such model.

    Raises:
        InputError: an unknown key, or a value out of its range; the message names the first.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(str(first["ctx"]["error"] if "ctx" in first else first["msg"])) from None
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InputError(f"unknown option {name!r}: there are {', '.join(kind.model_fields)}") from None
        said = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(f"{name} = {str(first['input'])[:40]!r}: {said}") from None


def understand(request: Request) -> Plan:
    """Read the formula and the space group of a request. Needs no model.

    Raises:
        InputError: a formula or group that is none, or things that cannot be asked together.
    """
    if request.prompt is not None:
        if (request.formula, request.z, request.space_group) != (None, None, None):
            raise InputError("a prompt stands for the formula, z and the space group: give one or the other")
        if not request.prompt:
            raise InputError("the prompt is empty: leave it out to let the network begin")
        return Plan(request, None, None, f"beginning with {request.prompt[:60]!r}")
    if request.formula is None:
        if request.z is not None:
            raise InputError(f"z = {request.z} without a formula: say of what, such as TiO2")
        if request.space_group is not None:
            raise InputError(
                f"space group {request.space_group!r} without a formula: say of what, such as TiO2"
            )
        return Plan(request, None, None, "no formula: the network chooses")
    cell = formulas.cell(request.formula, request.z)
    if request.space_group is None:
        return Plan(request, cell, None, cell.note)
    from crystallm import spacegroups

    if len(request.space_group) > 30:
        raise InputError(
            f"no space group {request.space_group[:30]!r}...: give a number or a symbol such as Fm-3m"
        )
    group = spacegroups.get(request.space_group)
    return Plan(request, cell, group, f"{cell.note}, {group.symbol} (no. {group.number})")


def read_requests(path: Path, *, n: int) -> list[Request]:
    """Requests of a CSV file with the columns formula[,z][,space_group][,n], one a row.

    Args:
        path: of the file, UTF-8.
        n: crystals of a request whose row does not say.

    Raises:
        InputError: a missing or unknown column, or a row that cannot be understood; with its line.
        CrystallmError: the file cannot be read.
    """
    requests = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", skipinitialspace=True)
            names = [(name or "").strip() for name in reader.fieldnames or ()]
            known = ("formula", "z", "space_group", "n")
            if "formula" not in names or set(names) - set(known):
                raise InputError(
                    f"{path}: the first line must name the columns formula[,z][,space_group][,n], not "
                    f"{','.join(names)[:60]!r}"
                )
            reader.fieldnames = names
            for row in reader:
                try:
                    request = _from_row(row, n)
                except InputError as error:
                    raise InputError(f"{path}, line {reader.line_num}: {error}") from None
                requests.append(request)
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8: {error}") from None
    if not requests:
        raise InputError(
            f"{path} holds no request: write one formula a line below the line that names the columns"
        )
    return requests


def _from_row(row: Mapping[str, str | None], n: int) -> Request:
    if "" in row:  # DictReader's place for what stands behind the last column
        raise InputError("more values than columns: is a comma too many?")
    values = {name: value.strip() for name, value in row.items() if value and value.strip()}
    if "formula" not in values:
        raise InputError("no formula")
    request = validated(Request, {"n": n, **values})
    understand(request)
    return request


class Generator:
    """A model at work on a list of requests.

    Sample j of request i has the index (samples of the requests before i) + j, so a crystal depends on the
    list, the settings and its place only, not on which requests are done together or again.

    Args:
        model: loaded.
        requests: all of the run.
        settings: how to sample.

    Raises:
        InputError: a request that cannot be understood or written, or whose prompt fills the context.
    """

    def __init__(self, model: Model, requests: Sequence[Request], settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self.plans = [understand(request) for request in requests]
        self._first = [0, *itertools.accumulate(request.n for request in requests)]
        self._prompts = [self._prompt(plan) for plan in self.plans]

    def write(
        self, units: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Write the crystals of some requests.

        Requests are put together until a batch is full.

        Args:
            units: which requests.
            progress: called with the number of crystals written so far, those of `units` alone counted.

        Returns:
            An iterator over the lists of crystals, one list a unit, in the order of `units`, each list in the
            order of the samples. The work is done as it is drawn from.

        Raises:
            InputError: at once, if no rule can be made for a request.
        """
        from crystallm import decode
        from crystallm.crystal import Crystal, Source

        language = self.model.language
        pairs = [(unit, self._first[unit] + j) for unit in units for j in range(self.plans[unit].request.n)]
        samples = decode.sample(
            self.model.network,
            [self._prompts[unit] for unit, _ in pairs],
            stop=decode.Stop(language.end_ids, slide=language.name == "cif"),
            indices=[index for _, index in pairs],
            rules=self._rules(units),
            progress=None if progress is None else lambda done, _: progress(done),
            **self.settings.model_dump(include=_SAMPLING),
        )
        found = (
            Crystal(
                language,
                sample.ids,
                n_prompt=sample.n_prompt,
                log_likelihood=sample.log_likelihood,
                ended=sample.ended,
                source=Source(self.model.name, self.settings.seed, index, self.plans[unit].note),
            )
            for (unit, index), sample in zip(pairs, samples, strict=True)
        )
        return (list(itertools.islice(found, self.plans[unit].request.n)) for unit in units)

    def _prompt(self, plan: Plan) -> list[int]:
        """The tokens that a request begins with.

        Raises:
            InputError: the language cannot say it, or it leaves no room in the context.
        """
        language = self.model.language
        if plan.request.prompt is not None:
            try:
                ids = language.ids(plan.request.prompt)
            except TextError as error:
                raise InputError(
                    f"the prompt is no text of the language {language.name!r}: {error}"
                ) from None
        else:
            ids = language.prompt(
                None if plan.cell is None else plan.cell.composition,
                None if plan.space_group is None else plan.space_group.number,
            )
        context = self.model.config.context
        if len(ids) >= context:
            raise InputError(
                f"the prompt ({plan.note}) has {len(ids)} tokens, and the context of the model "
                f"{self.model.name!r} holds {context}: ask for less, or take a model with a longer one"
            )
        return ids

    def _rules(self, units: Sequence[int]) -> Rules | None:
        """What may be written behind each prompt."""
        from crystallm import grammar

        found: dict[tuple[int, ...], Rules] = {}
        for unit in units:
            plan, prompt = self.plans[unit], tuple(self._prompts[unit])
            if prompt in found:
                continue
            rules = grammar.rules(
                self.model.language.name,
                None if plan.cell is None else plan.cell.composition,
                None if plan.space_group is None else plan.space_group.number,
                self.settings.constraints,
            )
            if rules is None:
                continue
            if plan.request.prompt is not None:
                try:
                    rules.start(prompt)
                except InputError as error:
                    raise InputError(
                        f"the prompt breaks the rules: {error}; or take constraints none"
                    ) from None
            found[prompt] = rules
        return _ByPrompt(found) if found else None


class _ByPrompt:
    """The rules of several requests, told apart by what they begin with."""

    def __init__(self, rules: Mapping[tuple[int, ...], Rules]) -> None:
        self._rules = rules

    def start(self, prompt: Sequence[int]) -> RowState:
        rules = self._rules.get(tuple(prompt))
        return _Free() if rules is None else rules.start(prompt)


class _Free:
    """No rule: all tokens may come next."""

    def allowed(self) -> Sequence[int] | None:
        return None

    def advance(self, token: int) -> None:
        pass


def generate(
    formula: str | None,
    *,
    z: int | None = None,
    space_group: int | str | None = None,
    n: int = 10,
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    top_k: int | None = 10,
    top_p: float | None = None,
    seed: int | None = None,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    batch_size: int = 32,
) -> list[Crystal]:
    """Write crystals for a formula.

    Args:
        formula: as people write it, `TiO2`, `(NH4)2SO4`; None leaves the composition to the network.
        z: formula units (of the reduced formula) in the conventional cell; None: the cell is as written.
        space_group: number or symbol; None leaves it to the network.
        n: how many.
        model: name of a bundled model, a path, or a model loaded before.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample from the k likeliest tokens; None for all.
        top_p: sample from the likeliest tokens that together hold this probability; None for all.
        seed: the same seed gives the same crystals (in float32); None draws one, kept in `crystal.source`.
        constraints: `full`, `syntax` or `none`; see `Settings`.
        device: where the network runs, unless it is loaded already.
        batch_size: crystals written at a time.

    Returns:
        n crystals in the order of their samples. Some may be broken or not valid: `crystal.validity` says so.

    Raises:
        InputError: a formula or group that is none, an option out of its range.
        CheckpointError: there is no such model.
    """
    from crystallm.checkpoint import Model, load_model

    request = validated(Request, {"formula": formula, "z": z, "space_group": space_group, "n": n})
    understand(request)  # before a model is loaded, which takes longer
    settings = validated(
        Settings,
        {
            "model": model.name if isinstance(model, Model) else str(model),
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": secrets.randbits(63) if seed is None else seed,
            "constraints": constraints,
            "device": device,
            "batch_size": batch_size,
        },
    )
    loaded = model if isinstance(model, Model) else load_model(model, device=device)
    (crystals,) = Generator(loaded, [request], settings).write([0])
    return crystals


def fingerprint(model: Model) -> str:
    """A few characters that tell the weights of one model from another's."""
    import torch

    embedding = model.network.transformer.wte.weight.detach().to("cpu", torch.float32)
    return hashlib.blake2b(embedding.numpy().tobytes(), digest_size=8).hexdigest()
