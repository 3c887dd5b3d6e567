"""Options of `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Same = Literal["id", "formula-group", "structure"]


class PrepareOptions(BaseModel):
    """What the steps of a preparation do. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    language: Literal["orbits", "cif", "none"] = "orbits"
    """Of the tokens; `none` keeps the crystals as CIFs, read, filtered and split, and writes no tokens."""
    symprec: float = Field(default=0.1, gt=0, le=1, allow_inf_nan=False)
    """Distance tolerance of the symmetry search, Å."""
    standardise: bool = False
    """With language `none`: write the conventional standardised cell in place of the text as it came."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longer crystals are refused; the context of the network to be trained."""
    max_atoms: int | None = Field(default=None, ge=1)
    """Atoms of the cell as given, at most."""
    min_volume: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Å^3 per atom, at least."""
    max_volume: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Å^3 per atom, at most."""
    min_distance: float = Field(default=0.5, ge=0, le=5, allow_inf_nan=False)
    """Å between two atoms, at least; 0 asks for none."""
    deduplicate: Literal["auto", "formula-group", "text", "none"] = "auto"
    """`formula-group`: of crystals with one cell formula and space group, keep the one with the least volume
    per formula unit. `text`: drop those whose text came before. `none`: keep all. `auto`: `none` where the
    splits are given, else `formula-group`, as the paper does with its benchmarks and with its large set."""
    split: str = "auto"
    """`given`: as inputs and their column `split` say, all else for training. `random`: `val` and `test` of
    all. `formula`: the same, no reduced formula in two of them. Or a CSV or JSON file that gives each id its
    split. `auto`: `given` if an input says one, else `random`."""
    val: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Share, or number from 1, of the crystals for validation. The default is the paper's."""
    test: float = Field(default=0.0045, ge=0, allow_inf_nan=False)
    """Share, or number from 1, of the crystals for testing. The default is the paper's."""
    equivalents: int = Field(default=0, ge=0, le=1000)
    """Descriptions of each training crystal beside the canonical one, drawn from the equivalent ones and
    written as the split `equivalents`; with language orbits. `Recipe.equivalents` draws from them."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of random splits and of equivalent descriptions."""
    exclude: tuple[str, ...] = ()
    """Collections of which nothing may be in the data, such as test sets."""
    exclude_by: tuple[Same, ...] = ("id", "formula-group")
    """What makes a row one of theirs: its id; reduced formula and space group; or pymatgen's StructureMatcher
    (0.2, 0.3, 5 degrees) among those of its reduced formula."""

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareOptions:
        if self.min_volume is not None and self.max_volume is not None and self.min_volume > self.max_volume:
            raise ValueError(f"min_volume = {self.min_volume} is above max_volume = {self.max_volume}")
        for name, value in (("val", self.val), ("test", self.test)):
            if value > 1 and value != int(value):
                raise ValueError(f"{name} = {value}: write a share below 1, or a whole number of crystals")
        if (self.val < 1) + (self.test < 1) == 2 and self.val + self.test >= 1:
            raise ValueError(f"val = {self.val} and test = {self.test} leave nothing for training")
        if self.equivalents and self.language != "orbits":
            raise ValueError(
                f"equivalents = {self.equivalents}: only crystals in the language orbits can be told in "
                f"equivalent ways, not in {self.language!r}"
            )
        if self.standardise and self.language != "none":
            raise ValueError(f"standardise goes with language none; {self.language!r} does so anyway")
        if self.language == "none" and self.deduplicate == "text" and not self.standardise:
            raise ValueError("deduplicate = 'text' needs a language, or standardise")
        return self

    @property
    def needs_symmetry(self) -> bool:
        """Whether a symmetry search is needed where there is no language to ask for one."""
        by_group = bool(self.exclude) and "formula-group" in self.exclude_by
        return self.standardise or by_group or self.deduplicate == "formula-group"
