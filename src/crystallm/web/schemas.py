"""What may be asked for over HTTP. Knows shapes of requests; refuses to know how any is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LARGEST_SEED = 2**53 - 1
"""Whole numbers above it are not exact in JavaScript."""

Formula = Annotated[
    str, Field(min_length=1, max_length=200, description="As people write it: `TiO2`, `(NH4)2SO4`.")
]

Z = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None,
    Field(
        description="Reduced formula units in the conventional cell; `auto`: likely numbers; null: likely "
        "numbers for a reduced formula, `TiO2`, and for a multiple, `Ti2O4`, the cell as written."
    ),
]

Group = Annotated[
    Annotated[int, Field(ge=1, le=230)] | Annotated[str, Field(max_length=30)] | None,
    Field(
        description="Number or symbol, of any setting (`Pbnm` is 62); null leaves it to the network; `auto`: "
        "spread over likely ones."
    ),
]

Seed = Annotated[
    int | None,
    Field(ge=0, le=LARGEST_SEED, description="The same seed gives the same crystals; null draws one."),
]

Name = Annotated[str, Field(min_length=1, max_length=100)]

Energy = Annotated[
    Name | None, Field(description="Name of an energy model that this server offers; null for none.")
]


class _Ask(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Generate(_Ask):
    """Write crystals for a formula; without one, of a chemical system, or in a space group."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "generate", "formula": "TiO2", "z": 2, "space_group": "P4_2/mnm", "n": 4, "seed": 1}
            ]
        }
    )

    kind: Literal["generate"]
    formula: Formula | None = None
    elements: str | None = Field(
        default=None,
        max_length=200,
        description="In place of a formula: a chemical system, `Li-Fe-O`; the network chooses the counts.",
    )
    allow_fewer_elements: bool = Field(default=False, description="Whether some of these may be left out.")
    z: Z = None
    space_group: Group = None
    n: int = Field(default=8, ge=1, description="Crystals.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="0 takes the likeliest token.")
    top_k: int | None = Field(
        default=10, ge=1, le=100_000, description="Of the k likeliest tokens; null: all."
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Seed = None
    model: Name | None = Field(default=None, description="One of the models of this server; null: its first.")
    energy: Energy = None
    relax: bool = Field(default=False, description="With energy: relax each crystal, its symmetry kept.")


class Search(_Ask):
    """Look for crystals of low energy."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"kind": "search", "formula": "TiO2", "z": 2, "simulations": 100}]}
    )

    kind: Literal["search"]
    formula: Formula
    z: Z = None
    space_group: Group = None
    n: int | None = Field(
        default=None,
        ge=1,
        description="So many distinct valid crystals are told, and of those found later the ones that are "
        "among the n lowest; null: as many as a job may have.",
    )
    simulations: int = Field(default=100, ge=1, description="Crystals that may be tried.")
    energy_calls: int | None = Field(
        default=None, ge=1, description="End earlier, after so many crystals whose energy was asked."
    )
    recipe: Literal["ours", "paper", "paper-long"] = Field(
        default="ours", description="`paper`: the tree search of the CrystaLLM paper."
    )
    seed: Seed = None
    model: Name | None = None
    energy: Energy = None


Structures = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200_000)]],
    Field(min_length=1, description="CIFs, or standard texts."),
]

_SALT = (
    "data_NaCl\n_symmetry_space_group_name_H-M 'F m -3 m'\n_cell_length_a 5.64\n_cell_length_b 5.64\n"
    "_cell_length_c 5.64\n_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n"
    "_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa 0 0 0\nCl .5 .5 .5\n"
)


class Relax(_Ask):
    """Bring crystals to the nearest minimum of an energy model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "relax", "structures": [_SALT]}]})

    kind: Literal["relax"]
    structures: Structures
    energy: Energy = None
    steps: int = Field(default=200, ge=0, le=2000)
    fmax: float = Field(default=0.05, gt=0, le=10, description="Largest force at which to stop, eV/Å.")
    keep_symmetry: bool = False


class Evaluate(_Ask):
    """Judge crystals as the CrystaLLM paper does."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "evaluate", "structures": [_SALT]}]})

    kind: Literal["evaluate"]
    structures: Structures
    judge: Literal["auto", "text", "crystal"] = "auto"


AnyAsk = Generate | Search | Relax | Evaluate

KINDS: dict[str, type[_Ask]] = {
    "generate": Generate,
    "search": Search,
    "relax": Relax,
    "evaluate": Evaluate,
}


def of_record(record: dict[str, Any]) -> Any:
    """An ask that was kept as plain values."""
    return KINDS[record["kind"]](**record)
