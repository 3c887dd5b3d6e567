"""Requests for crystals, and how to sample."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator

from crystallm.crystallography import formula as formulas
from crystallm.errors import InputError
from crystallm.execution.place import DeviceOptions
from crystallm.models.options import ModelNameOptions
from crystallm.options import NOT_DECIDING, CommonOptions, Flag, Options, same

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import SpaceGroup

LEAST_TEMPERATURE = 0.01
"""Least temperature above 0: logits divided by less leave the range of float32 or draw the most likely token
anyway."""
MAX_SAMPLES = 1_000_000
"""Crystals of one request, at most."""


class FormulaOptions(Options):
    """Composition of the cell."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    formula: str | None = None
    """Chemical formula: TiO2, '(NH4)2SO4'; Ti2O4 is a cell of two formula units."""
    z: Annotated[int | Literal["auto"] | None, Flag(("-z",))] = None
    """Formula units in the conventional cell; auto tries likely values. Default: auto for TiO2, the cell as
    written for a multiple such as Ti2O4."""


class CellOptions(FormulaOptions):
    """Composition and space group of the cell."""

    space_group: str | None = None
    """Number or symbol: 136, P4_2/mnm, 'P 42/m n m'; auto: spread over likely groups. Default: the model
    chooses for each sample."""


class Request(CellOptions):
    """Which crystals to generate."""

    n: Annotated[int, Flag(("-n", "--samples"))] = Field(default=10, ge=1, le=MAX_SAMPLES)
    """Number of crystals per request."""
    prompt: str | None = None
    r"""Start of a token sequence in the model's language, in place of a formula; \n is a newline."""
    elements: str | None = None
    """Chemical system, such as Li-Fe-O, in place of a formula; the model chooses the counts."""
    allow_fewer_elements: bool = False
    """With --elements: some of them may be missing."""
    conditions: Annotated[tuple[str, ...], Flag(name="--condition", several=True)] = ()
    """Values of properties that the model was trained with: density=5.2, band_gap=1.2:1.8 (spread evenly over
    the range); others are left open. In Python also {"density": 5.2, "band_gap": (1.2, 1.8)}."""

    @field_validator("conditions", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return condition_texts(value)


def condition_texts(value: Any) -> Any:
    """Return conditions as texts: of a mapping of numbers or pairs, of one text of several, or of texts."""
    if isinstance(value, Mapping):
        pairs = {
            name: bounds if isinstance(bounds, tuple | list) else (bounds,) for name, bounds in value.items()
        }
        return tuple(f"{name}={':'.join(map(str, bounds))}" for name, bounds in pairs.items())
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    return tuple(part for text in texts for part in re.split(r"[\s,;]+", str(text)) if part)


def with_default_z(request: Request) -> Request:
    """Return a request with its default Z filled in.

    A reduced formula (`TiO2`) or a well-known molecule (`Hg2Cl2`) names a compound, and Z becomes `auto`; any
    other multiple (`Ti2O4`) is the cell as written. Code that means cells, such as a benchmark, does not call
    this.

    Raises:
        InputError: not a formula.
    """
    if request.formula is None or request.z is not None:
        return request
    if formulas.cell(request.formula).z > 1 and formulas.molecule_units(request.formula) == 1:
        return request
    return request.model_copy(update={"z": "auto"})


def elements_of(request: Request) -> tuple[str, ...]:
    """Return the elements that every crystal of a request has; empty where the network chooses them.

    Raises:
        InputError: not a formula, or not a chemical system.
    """
    if request.formula is not None:
        return tuple(formulas.parse(request.formula))
    if request.elements is None or request.allow_fewer_elements:
        return ()
    return formulas.system(request.elements)


def requested_group(request: Request) -> SpaceGroup | None:
    """Return the requested space group, or None.

    Raises:
        InputError: not a space group.
    """
    from crystallm.crystallography import space_groups

    if request.space_group is None:
        return None
    if len(request.space_group) > 30:
        raise InputError(
            f"no space group {request.space_group[:30]!r}...: give a number or a symbol such as Fm-3m"
        )
    return space_groups.from_any_setting(request.space_group)


def _require_temperature(value: float) -> float:
    if 0 < value < LEAST_TEMPERATURE:
        raise ValueError(f"take 0, the most likely token, or at least {LEAST_TEMPERATURE}")
    return value


class SamplingOptions(ModelNameOptions):
    """How to sample from a model."""

    temperature: Annotated[float, AfterValidator(_require_temperature)] = Field(
        default=1.0, ge=0, allow_inf_nan=False
    )
    """Divides the logits: below 1 favours likely tokens, above 1 adds variety; 0 takes the most likely."""
    top_k: int | None = Field(default=10, ge=1)
    """Sample from the k most likely tokens; none: from all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sample from the most likely tokens that together reach this probability; none: from all."""
    guidance: float = Field(default=2.0, ge=0, le=20, allow_inf_nan=False)
    """Strength of --condition: 1 samples from the trained distribution; above 1, crystals follow the
    conditions more closely and vary less, at twice the time; 0 ignores them."""
    seed: int = same(
        CommonOptions,
        "seed",
        description="Seed of the random numbers; the same seed gives the same crystals (in float32).",
    )
    constraints: Literal["full", "syntax", "none"] = "full"
    """full: tokens that can still become a crystal with the requested composition and group; syntax: tokens
    that keep the format; none: any token."""
    device: str = same(DeviceOptions, "device")
    dtype: Literal["auto", "float32", "bfloat16"] = same(
        CommonOptions,
        "dtype",
        description="Precision of the network; auto is float32. bfloat16 is faster for large networks, but "
        "crystals then may change with the batch size.",
    )
    batch_size: Annotated[int, NOT_DECIDING] = Field(default=32, ge=1)
    """Crystals sampled at a time."""
    max_new_tokens: int = Field(default=3000, ge=1)
    """Tokens of one crystal, at most; a longer one is left unfinished."""


class PlainSamplingOptions(SamplingOptions):
    """How to sample where no conditions are requested."""

    guidance: Annotated[float, Flag(parsed=False)] = same(SamplingOptions, "guidance")
