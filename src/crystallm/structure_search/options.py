"""Options of a search, and presets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from crystallm.diffraction.options import PatternOptions
from crystallm.energy.options import EnergyModelOptions
from crystallm.generation.request import SamplingOptions
from crystallm.options import Flag, Options, same
from crystallm.structure_search.objectives.objective import ENERGY, parse_terms

Method = Literal["elites", "tree", "sampling"]
Preset = Literal["default", "paper"]
SIMULATIONS = 200
"""Simulations if there is no other limit."""
BOUNDS = ("simulations", "energy_calls", "minutes")
"""Options that decide how long a search runs, not how: a search may resume under others."""
GREEDY = 0.1
"""Default exploration of the rule `greedy`: its share of random choices."""

PRESETS: dict[Preset, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "paper": ({"method": "tree", "parallel_simulations": 1}, {"max_new_tokens": 1000}),
}
"""Defaults of SearchOptions and SamplingOptions by name. `paper`: the tree search of CrystaLLM (Nature
Communications 15, 10570), width 10, exploration 5, one simulation at a time, top-k = width."""


class TreeOptions(Options):
    """The tree search; see `mcts`."""

    selection_rule: Literal["puct", "uct", "greedy"] = "puct"
    """Tree: how to choose the branch to follow."""
    exploration: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Tree: weight of branches with few visits; for greedy the share of random choices, 0.1 by default."""
    width: int = Field(default=10, ge=1)
    """Tree: branches of a node, at most; also the default of --top-k."""
    prior_cutoff: float = Field(default=0.99, ge=0, le=1)
    """Tree: a branch with more than this probability is the only one."""
    n_space_groups: int = Field(default=0, ge=0)
    """Tree: branches where the space group is chosen; 0: as elsewhere."""
    reward_slope: float = Field(default=2.0, allow_inf_nan=False)
    """Tree: how steeply the reward falls with the z-score of the energy."""

    @model_validator(mode="before")
    @classmethod
    def _greedy_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("selection_rule") == "greedy":
            return {"exploration": GREEDY} | given
        return given

    @model_validator(mode="after")
    def _check_greedy(self) -> TreeOptions:
        if self.selection_rule == "greedy" and self.exploration > 1:
            raise ValueError(
                f"exploration = {self.exploration} of greedy: give a share of random choices, from 0 to 1"
            )
        return self


class EliteOptions(Options):
    """The search that improves the best crystals so far; see `elite_policy`."""

    warm_up: int = Field(default=24, ge=1)
    """Elites: simulations from the prompt before any from a good crystal."""
    explore_share: float = Field(default=0.25, ge=0, le=1)
    """Elites: share of later simulations from the prompt."""
    resample_share: float = Field(default=0.2, ge=0, le=1)
    """Elites: of simulations from a good crystal, share that is resampled from a random position on."""
    mutation_share: float = Field(default=0.15, ge=0, le=1)
    """Elites: share with one number changed at random; the rest follows predicted energies."""
    energy_scale: float = Field(default=0.03, gt=0, allow_inf_nan=False)
    """Elites: energy over which the weight of a family falls to 1/e, eV/atom."""
    rank_scale: float = Field(default=1.5, gt=0, allow_inf_nan=False)
    """Elites: ranks over which the weight of a crystal in its family falls to 1/e."""
    mutation_step: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Elites: size of changes, in steps of 0.5 % of volume or ratio, 0.1°, 0.004 of an edge."""


class SearchOptions(Options):
    """How to search, and for how long."""

    preset: Preset = "default"
    """paper: the tree search of CrystaLLM with its settings, which other options override."""
    method: Method = "elites"
    """elites: improve good crystals; tree: search a tree of choices; sampling: neither."""
    simulations: int | None = Field(default=None, ge=1)
    """Stop after this number of simulations. Default: 200 if there is no other limit."""
    energy_calls: int | None = Field(default=None, ge=1)
    """Stop after computing the energies of this number of crystals."""
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Stop after this time, earlier runs included."""
    energy: str = same(
        EnergyModelOptions,
        "energy",
        default="chgnet",
        description="Energy model: chgnet, sevennet, tcp://..., or module:factory of an ASE calculator.",
    )
    objective: Annotated[tuple[str, ...], Flag(several=True)] = (ENERGY,)
    """What is minimised: energy, density (dense crystals first), pattern, or module:function; several with
    weights: energy=1 pattern=2."""
    measured: Annotated[PatternOptions, Flag(name="*")] = Field(default_factory=PatternOptions.defaults)
    """The pattern of the objective pattern."""
    energy_timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Time limit for the energy of one crystal, s."""
    parallel_simulations: int = Field(default=8, ge=1)
    """Simulations of a round; none of them knows the results of the others."""
    rollouts: int = Field(default=1, ge=1)
    """Crystals sampled per simulation; a tree learns their mean reward."""
    tree: Annotated[TreeOptions, Flag(name="*")] = Field(default_factory=TreeOptions.defaults)
    """Options of the tree search."""
    elites: Annotated[EliteOptions, Flag(name="*")] = Field(default_factory=EliteOptions.defaults)
    """Options of the search from good crystals."""

    @model_validator(mode="before")
    @classmethod
    def _preset_defaults(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") in PRESETS:
            return PRESETS[given["preset"]][0] | given
        return given

    @model_validator(mode="after")
    def _check_combination(self) -> SearchOptions:
        names = [term.name for term in parse_terms(self.objective)]
        if self.measured.model_fields_set and "pattern" not in names:
            raise ValueError(
                f"a pattern has no effect with objective = {' '.join(names)!r}: add pattern to it"
            )
        if self.method == "sampling" and self.rollouts > 1:
            raise ValueError(f"rollouts = {self.rollouts} of plain sampling: ask for more simulations")
        for owner in ("tree", "elites"):
            group = getattr(self, owner)
            if group.model_fields_set and self.method != owner:
                name = next(name for name in type(group).model_fields if name in group.model_fields_set)
                raise ValueError(
                    f"{name} = {getattr(group, name)!r} has no effect with method = {self.method!r}: "
                    f"leave it out, or choose {owner!r} (--method {owner})"
                )
        return self

    @property
    def max_simulations(self) -> int | None:
        """Largest number of simulations; None for no limit."""
        unbounded = self.energy_calls is None and self.minutes is None
        return SIMULATIONS if self.simulations is None and unbounded else self.simulations

    @property
    def needs_energy(self) -> bool:
        """Whether the energy is part of the objective."""
        return any(term.name == ENERGY for term in parse_terms(self.objective))

    def baseline(self) -> SearchOptions:
        """Return plain sampling under the same limits."""
        kept = {*BOUNDS, "energy", "energy_timeout", "parallel_simulations", "objective", "measured"}
        return SearchOptions.build(self.model_dump(include=kept, exclude_unset=True) | {"method": "sampling"})


def sampling_of(options: SearchOptions, sampling: SamplingOptions) -> SamplingOptions:
    """Return sampling options with the defaults of a search; what was set explicitly wins.

    A tree search samples from its `width` most likely tokens unless top_k is set, so that its rollouts stay
    among the branches of the tree.
    """
    defaults = PRESETS[options.preset][1]
    if options.method == "tree":
        defaults = {"top_k": options.tree.width} | defaults
    return SamplingOptions.build(defaults | sampling.model_dump(exclude_unset=True))
