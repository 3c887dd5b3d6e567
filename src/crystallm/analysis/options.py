"""Options of `crystallm embeddings`. Imports pydantic only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import field_validator

from crystallm.models.options import ModelNameOptions
from crystallm.options import CommonOptions, Flag, same


class EmbeddingsOptions(ModelNameOptions):
    """Which embeddings to write, and where."""

    of: Literal["atoms", "digits", "space-groups"] = "atoms"
    """Kind of tokens."""
    out: Path | None = same(CommonOptions, "out", description="File of the vectors: .csv or .parquet.")
    picture: Annotated[Path | None, Flag(name="--map")] = None
    """File of a map in two dimensions: .png."""

    @field_validator("out", "picture")
    @classmethod
    def _check_ending(cls, value: Path | None, info: object) -> Path | None:
        endings = (".png",) if getattr(info, "field_name", "") == "picture" else (".csv", ".parquet")
        if value is not None and value.suffix.lower() not in endings:
            raise ValueError(f"name a file that ends in {' or '.join(endings)}")
        return value
