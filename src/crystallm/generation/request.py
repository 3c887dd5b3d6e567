"""Requests for crystals, and how to sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from crystallm.crystallography import formula as formulas
from crystallm.errors import InputError

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import SpaceGroup


MAX_SAMPLES = 1_000_000
"""Crystals of one request, at most."""


class Request(BaseModel):
    """What to write. Frozen; refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True
    )

    formula: str | None = None
    """As people write it; None leaves the composition to the network."""
    z: int | Literal["auto"] | None = None
    """Reduced formula units in the conventional cell; None: the cell is as written, which is seldom what a
    person means who leaves it out, see `opened`; `auto`: samples are spread over the numbers that the network
    finds likely."""
    space_group: str | None = None
    """Symbol or number; None leaves it to the network, sample by sample; `auto`: samples are spread over the
    groups that the network finds likely."""
    n: int = Field(default=10, ge=1, le=MAX_SAMPLES)
    """Crystals."""
    prompt: str | None = None
    """A beginning of a text, in place of formula and space group."""
    elements: str | None = None
    """A chemical system, `Li-Fe-O`, in place of a formula: the network chooses how many atoms of each."""
    elements_subset: bool = False
    """Whether some of these elements may be left out."""


def with_default_z(request: Request) -> Request:
    """What a person asks for who may have left Z out.

    A formula without Z that is a reduced one (`TiO2`) names a compound, and Z is `auto`; one that is a
    multiple (`Ti2O4`) is the cell as written. Whoever speaks of cells, as a benchmark does, builds the
    request and leaves it as it is.

    Raises:
        InputError: the formula is none.
    """
    if request.formula is None or request.z is not None or formulas.cell(request.formula).z > 1:
        return request
    return request.model_copy(update={"z": "auto"})


def elements_of(request: Request) -> tuple[str, ...]:
    """Elements that are in each crystal of a request for certain; none where the network may choose them.

    Raises:
        InputError: no formula, or no chemical system.
    """
    if request.formula is not None:
        return tuple(formulas.parse(request.formula))
    if request.elements is None or request.elements_subset:
        return ()
    return formulas.system(request.elements)


def requested_group(request: Request) -> SpaceGroup | None:
    """The space group that was asked for, if one was."""
    from crystallm.crystallography import space_groups

    if request.space_group is None:
        return None
    if len(request.space_group) > 30:
        raise InputError(
            f"no space group {request.space_group[:30]!r}...: give a number or a symbol such as Fm-3m"
        )
    return space_groups.from_any_setting(request.space_group)


class SamplingOptions(BaseModel):
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
    `syntax`: only what keeps the form of a text. `none`: the network alone."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`, `mps`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network. `auto` is float32, in which a crystal does not depend on what is written
    beside it; bfloat16 is faster for large networks, and some crystals then do."""
    batch_size: int = Field(default=32, ge=1)
    """Crystals written at a time."""
    max_new_tokens: int = Field(default=3000, ge=1)
    """A crystal that has so many tokens and no end is left unfinished."""
