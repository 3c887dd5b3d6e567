"""Schemas of the HTTP API: requests, states of jobs, errors. Does not depend on how jobs are run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.energy.options import EnergyModelOptions, RelaxOptions
from crystallm.generation.request import CellOptions, Request, SamplingOptions
from crystallm.options import same
from crystallm.references.options import ReferenceOptions
from crystallm.sources.options import ReadOptions
from crystallm.structure_search.options import Preset, SearchOptions

MAX_SEED = 2**53 - 1
"""Larger integers are not exact in JavaScript."""


class ErrorDetail(BaseModel):
    """An error in one line."""

    message: str
    field: str | None = Field(default=None, description="The field of the request that is wrong.")


class Problem(BaseModel):
    """The answer to a request that was rejected or failed."""

    error: ErrorDetail


PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem},
    422: {"model": Problem},
    429: {"model": Problem, "description": "Too many jobs; Retry-After gives the seconds to wait."},
}


class JobState(BaseModel):
    """A job and its results so far."""

    id: str
    request: dict[str, Any] = Field(description="The request, with defaults filled in.")
    created: float = Field(description="Seconds since 1970.")
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    position: int | None = Field(default=None, description="Position in the queue, from 1.")
    total: int | None = Field(default=None, description="Expected crystals; simulations of a search.")
    note: str | None = Field(default=None, description="How the request was interpreted.")
    message: str | None = Field(default=None, description="Why the job failed.")
    crystals: list[dict[str, Any]] = Field(default_factory=list)
    curve: list[dict[str, Any]] = Field(default_factory=list, description="Lowest energy by step, eV/atom.")
    progress: dict[str, Any] | None = Field(
        default=None,
        description="Progress of a search: simulations, energy calls, texts, plausible ones; of a pattern: "
        "candidates that are fitted.",
    )


Formula = Annotated[
    str, Field(min_length=1, max_length=200, description="Formula such as `TiO2` or `(NH4)2SO4`.")
]
Z = Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None
SpaceGroup = Annotated[int, Field(ge=1, le=230)] | Annotated[str, Field(max_length=30)] | None
Name = Annotated[str, Field(min_length=1, max_length=100)]
Structures = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200_000)]],
    Field(min_length=1, description="CIFs, of this program or any other."),
]
_SALT = (
    "data_NaCl\n_symmetry_space_group_name_H-M 'F m -3 m'\n_cell_length_a 5.64\n_cell_length_b 5.64\n"
    "_cell_length_c 5.64\n_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n"
    "_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa 0 0 0\nCl .5 .5 .5\n"
)


def _config(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra={"examples": [example]})


class EnergyRequest(BaseModel):
    """A request that may name an energy model."""

    energy: Name | None = same(
        EnergyModelOptions,
        "energy",
        description="One of the energy models of this server; null for none.",
    )


class ModelRequest(BaseModel):
    """A request for crystals of a model, in a cell."""

    z: Z = same(
        CellOptions,
        "z",
        description="Reduced formula units in the conventional cell; `auto`: likely values; null: likely "
        "values for a reduced formula (`TiO2`), the cell as written for a multiple (`Ti2O4`).",
    )
    space_group: SpaceGroup = same(
        CellOptions,
        "space_group",
        description="Number, or symbol in any setting (`Pbnm` is 62); `auto`: likely groups; null: the model "
        "chooses for each sample.",
    )
    seed: int | None = same(
        SamplingOptions,
        "seed",
        lt=MAX_SEED + 1,
        description="The same seed gives the same crystals; null draws one.",
    )
    model: Name | None = same(
        SamplingOptions,
        "model",
        default=None,
        description="One of the models of this server; null for the first of them.",
    )


class CellRequest(ModelRequest, EnergyRequest):
    """A request for crystals of a model that may be ranked by energy."""


class GenerateRequest(CellRequest):
    """Generate crystals of a formula, a chemical system or a space group."""

    model_config = _config(
        {"kind": "generate", "formula": "TiO2", "z": 2, "space_group": "P4_2/mnm", "n": 4, "seed": 1}
    )

    kind: Literal["generate"]
    formula: Formula | None = same(
        CellOptions, "formula", description="Formula such as `TiO2` or `(NH4)2SO4`."
    )
    elements: str | None = same(Request, "elements", max_length=200)
    allow_fewer_elements: bool = same(
        Request, "allow_fewer_elements", description="Whether some of the elements may be missing."
    )
    conditions: list[Annotated[str, Field(max_length=100)]] = same(
        Request,
        "conditions",
        default=[],
        max_length=20,
        description="Values of properties that the model was trained with, such as `density=5.2` or "
        "`band_gap=1.2:1.8`.",
    )
    guidance: float = same(
        SamplingOptions,
        "guidance",
        description="Strength of the conditions: 1 as trained; above 1, crystals follow them more closely.",
    )
    n: int = same(Request, "n", default=8)
    temperature: float = same(SamplingOptions, "temperature", le=10)
    top_k: int | None = same(SamplingOptions, "top_k", le=100_000)
    top_p: float | None = same(SamplingOptions, "top_p")
    crystals_from: Literal["auto", "network", "references", "both"] = same(
        ReferenceOptions,
        "crystals_from",
        description="network: crystals are sampled; references: they are made of known crystals by replacing "
        "elements; both: half of each, where the formula has relatives; auto: both with the bundled model.",
    )
    relax: bool = same(
        EnergyModelOptions, "relax", description="Relax each crystal and keep its symmetry; needs energy."
    )


class SearchRequest(CellRequest):
    """Search for crystals of low energy."""

    model_config = _config({"kind": "search", "formula": "TiO2", "z": 2, "simulations": 100})

    kind: Literal["search"]
    formula: Formula
    n: int | None = same(
        Request,
        "n",
        default=None,
        description="Report the first n distinct plausible crystals, then only the n lowest energies; null: "
        "as many as a job may have.",
    )
    simulations: int = same(SearchOptions, "simulations", default=100, description="Simulations.")
    energy_calls: int | None = same(
        SearchOptions, "energy_calls", description="Stop after n computed energies."
    )
    preset: Preset = same(
        SearchOptions, "preset", description="`paper`: the tree search of the CrystaLLM paper."
    )


class SolveRequest(ModelRequest):
    """Find the crystal of a powder pattern."""

    model_config = _config(
        {"kind": "solve", "formula": "NaCl", "pattern_text": "5.00 102\n5.02 98\n", "pattern_name": "salt.xy"}
    )

    kind: Literal["solve"]
    formula: Formula = same(SolveOptions, "formula", default=...)
    pattern_text: str = Field(min_length=1, description="Text of the file: a table, .xrdml or pdCIF.")
    pattern_name: str = Field(
        default="pattern.xy",
        max_length=200,
        description="Name of the file, whose ending decides how it is read.",
    )
    wavelength: Annotated[str, Field(max_length=20)] | None = same(PatternOptions, "wavelength")
    radiation: Literal["xray", "neutron"] = same(PatternOptions, "radiation")
    phase_cifs: list[Annotated[str, Field(min_length=1, max_length=200_000)]] = Field(
        default_factory=list,
        max_length=10,
        description="CIFs of phases that the sample may have beside the crystal; those found are refined.",
    )
    crystals_from: Literal["network", "references", "both"] = same(SolveReferenceOptions, "crystals_from")
    candidates: int = same(SolveOptions, "candidates")
    answers: int = same(SolveOptions, "answers", le=20)


class RelaxRequest(EnergyRequest):
    """Relax structures to the nearest minimum of an energy model."""

    model_config = _config({"kind": "relax", "structures": [_SALT]})

    kind: Literal["relax"]
    structures: Structures
    steps: int = same(RelaxOptions, "steps", default=200, le=2000)
    fmax: float = same(RelaxOptions, "fmax", default=0.05, le=10)
    keep_symmetry: bool = same(RelaxOptions, "keep_symmetry", default=False)


class EvaluateRequest(BaseModel):
    """Check structures as the CrystaLLM paper does, and against the distances of known crystals."""

    model_config = _config({"kind": "evaluate", "structures": [_SALT]})

    kind: Literal["evaluate"]
    structures: Structures
    read_as: Literal["auto", "text"] = same(
        ReadOptions,
        "read_as",
        description="`text`: check the CIF as it is printed; `auto`: only if this program printed it.",
    )


JobRequest = GenerateRequest | SearchRequest | SolveRequest | RelaxRequest | EvaluateRequest
KINDS: dict[str, type[JobRequest]] = {
    "generate": GenerateRequest,
    "search": SearchRequest,
    "solve": SolveRequest,
    "relax": RelaxRequest,
    "evaluate": EvaluateRequest,
}
"""Request schemas by kind."""


def request_from_record(record: dict[str, Any]) -> JobRequest:
    """Return the request that was stored as plain values."""
    return KINDS[record["kind"]](**record)
