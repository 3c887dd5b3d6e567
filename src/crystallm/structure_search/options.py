"""How to search, and for how long. Refuses to know how it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crystallm.errors import InputError
from crystallm.options import validated

if TYPE_CHECKING:
    from collections.abc import Mapping


Method = Literal["elites", "tree", "sampling"]

SIMULATIONS = 200
"""Simulations where no other bound is given."""

BOUNDS = ("simulations", "energy_calls", "minutes")
"""Options that say for how long, not how: a search may go on under others."""

TREE = ("rule", "c", "width", "cutoff", "n_space_groups", "prior_temperature", "k")

ELITES = ("warm_up", "explore", "redraw", "change", "warmth", "spread", "step")

OWNED = dict.fromkeys(TREE, "tree") | dict.fromkeys(ELITES, "elites")
"""Options that one method alone looks at."""

GREEDY = 0.1
"""Rate of random choices of the rule `greedy` where none is given."""

RECIPES: dict[str, dict[str, Any]] = {
    "ours": {},
    "paper": {"method": "tree", "leaves": 1, "top_k": 10, "max_new_tokens": 1000},
    "paper-long": {
        "method": "tree", "leaves": 1, "width": 5, "c": 1.0, "simulations": 1000, "top_k": 5,
        "max_new_tokens": 1000,
    },
}  # fmt: skip
"""Defaults by name, of these options and of `generation.Settings`. `paper`: width 10, c 5, 200 simulations,
one at a time, written with top-k = width to 1,000 tokens; `paper-long` is the paper's other setting."""


class SearchOptions(BaseModel):
    """How to search. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Method = "elites"
    """See `search_policies`."""
    simulations: int | None = Field(default=None, ge=1)
    """Stop after so many; 200 if nothing bounds the search."""
    energy_calls: int | None = Field(default=None, ge=1)
    """Stop after so many crystals whose energy was asked; roll-outs of the last simulation may pass it."""
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Stop after so long, those of earlier runs of the search counted."""
    energy: str = "chgnet"
    """Energy model, see `energy.model`."""
    energy_seconds: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Limit for the energy of one crystal."""
    leaves: int = Field(default=8, ge=1)
    """Simulations at a time: none of them knows what comes of the others."""
    rollouts: int = Field(default=1, ge=1)
    """Texts written in one simulation; a tree learns their mean reward."""
    rule: Literal["puct", "uct", "greedy"] = "puct"
    """Of the tree, see `tree`, as are the next six."""
    c: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Weight of what has been visited little; of `greedy` the rate of random choices, 0.1 if not given."""
    width: int = Field(default=10, ge=1)
    """Children of a node, at most."""
    cutoff: float = Field(default=0.99, ge=0, le=1)
    """A child that holds more than this share is the only one."""
    n_space_groups: int = Field(default=0, ge=0)
    """Width where the space group is chosen; 0: as elsewhere."""
    prior_temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Of the priors of children."""
    k: float = Field(default=2.0, allow_inf_nan=False)
    """How much the z-score of an energy counts in its reward."""
    warm_up: int = Field(default=24, ge=1)
    """Elites: simulations from the prompt before any from a good crystal."""
    explore: float = Field(default=0.25, ge=0, le=1)
    """Elites: share of those behind that are from the prompt, too."""
    redraw: float = Field(default=0.2, ge=0, le=1)
    """Elites: share of those from a good crystal that are written anew from some choice on."""
    change: float = Field(default=0.15, ge=0, le=1)
    """Elites: share of those that have one number changed; the others are guessed to be low."""
    warmth: float = Field(default=0.03, gt=0, allow_inf_nan=False)
    """Elites: energy over which the weight of a family falls to 1/e, eV per atom."""
    spread: float = Field(default=1.5, gt=0, allow_inf_nan=False)
    """Elites: ranks over which the weight of a crystal in its family falls to 1/e."""
    step: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Elites: how far a number is changed, in steps of 0.5 % of volume or ratio, 0.1°, 0.004 of an edge."""

    @model_validator(mode="before")
    @classmethod
    def _greedy_mostly(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("rule") == "greedy":
            return {"c": GREEDY} | given
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> SearchOptions:
        if self.method == "sampling" and self.rollouts > 1:
            raise ValueError(f"rollouts = {self.rollouts} of plain sampling: ask for more simulations")
        if self.rule == "greedy" and self.c > 1:
            raise ValueError(f"c = {self.c} of greedy: write a rate of random choices, from 0 to 1")
        for name, owner in OWNED.items():
            if name in self.model_fields_set and self.method != owner:
                said = f"{name} = {getattr(self, name)!r} says nothing to method = {self.method!r}"
                raise ValueError(f"{said}: leave it out, or ask for {owner!r} (--method {owner})")
        return self

    @property
    def most(self) -> int | None:
        """Simulations, at most."""
        unbounded = self.energy_calls is None and self.minutes is None
        return SIMULATIONS if self.simulations is None and unbounded else self.simulations


def split(recipe: str, given: Mapping[str, Any]) -> tuple[SearchOptions, dict[str, Any]]:
    """The options of a search, and what is left for `generation.Settings`.

    Args:
        recipe: whose defaults.
        given: options that stand before them.

    Raises:
        InputError: no such recipe, an option out of its range.
    """
    if recipe not in RECIPES:
        raise InputError(f"no recipe {recipe!r}: there are {', '.join(RECIPES)}")
    bounded = any(given.get(name) is not None for name in BOUNDS)
    base = {name: value for name, value in RECIPES[recipe].items() if not (bounded and name in BOUNDS)}
    # A method or rule that stands before the recipe's has no use for what the recipe tells its own.
    method = given.get("method", base.get("method", "elites"))
    gone = [name for name in base if OWNED.get(name, method) != method]
    if given.get("rule") == "greedy":
        gone.append("c")
    everything = {name: value for name, value in base.items() if name not in gone} | dict(given)
    own = {name: everything.pop(name) for name in tuple(everything) if name in SearchOptions.model_fields}
    options = validated(SearchOptions, own)
    if options.method == "tree" and "top_k" not in given:
        everything["top_k"] = options.width  # roll-outs stay among what the tree may choose
    return options, everything
