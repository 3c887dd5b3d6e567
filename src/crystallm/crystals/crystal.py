"""A sampled crystal, its properties and where it comes from.

Properties are computed from the tokens when they are first used. Does not depend on networks; writes no
files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import formula
from crystallm.errors import CrystallmError, TextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.cif.parser import ParsedText
    from crystallm.language import Language
    from crystallm.references.lookup import Relative
    from crystallm.validity.verdict import Validity


@dataclass(frozen=True, slots=True)
class Source:
    """Where a crystal comes from: the same model, seed, index and request give it again.

    Attributes:
        index: of the sample in the run; with the seed, names its random stream.
        request: as interpreted, one line for the user.
        z_probability: where Z was chosen, its probability among the values tried.
        space_group_probability: where the space group was chosen, its probability among those of this Z.
        relative: known crystal that it was made of; None where a network sampled it.
        conditions: values of properties that the network was given, `density=5.2 band_gap=1.31`.
    """

    model: str
    seed: int
    index: int
    request: str
    z_probability: float | None = None
    space_group_probability: float | None = None
    relative: Relative | None = None
    conditions: str = ""


class Crystal:
    """A sampled crystal.

    A token sequence may not be a crystal. Then `structure`, `cif` and `text` raise a TextError with the
    reason, and `validity` reports it without raising.

    Args:
        language: of the tokens.
        ids: all tokens, including prompt and end.
        n_prompt: the first tokens that encode the request.
        log_likelihood: of the other tokens, and of Z where it was chosen, for the network at temperature 1,
            nats.
        ended: whether the sequence is complete, not cut off.
        source: where it comes from.
    """

    def __init__(
        self,
        language: Language,
        ids: Sequence[int],
        *,
        n_prompt: int = 0,
        log_likelihood: float = math.nan,
        ended: bool = True,
        source: Source | None = None,
    ) -> None:
        self.language = language
        self.ids = tuple(ids)
        self.n_prompt = n_prompt
        self.log_likelihood = log_likelihood
        self.ended = ended
        self.source = source
        self.energy: float | None = None
        """eV per atom, of `structure`; None if it was not computed."""
        self.objective: float | None = None  # what a search minimises; None where there was no search
        self.energy_reason: str | None = None
        """Why there is no energy, if it was requested."""
        self.formation_energy: float | None = None
        """eV per atom, if requested and the elements have energies; see `thermodynamics.formation`."""
        self.e_above_hull: float | None = None
        """eV per atom above the hull of known entries, if one is given; see `thermodynamics.hull`."""
        self.relaxed: Structure | None = None
        """The structure after relaxation with an energy model; None if it was not relaxed."""
        self.cluster: int | None = None
        """Number of its cluster of equal crystals of the request, if these were clustered."""
        self.cluster_size: int | None = None  # crystals in its cluster
        self.rank: int | None = None
        """Its rank in the request, 1 for the best; distinct crystals come before duplicates."""

    def __repr__(self) -> str:
        try:
            structure, group = self.structure, self.space_group
        except CrystallmError as error:
            return f"<Crystal, broken: {error}>"
        return f"<Crystal {formula.of_atoms(structure.composition.get_el_amt_dict())} {group}>"

    @cached_property
    def sampled_text(self) -> str:
        """The token sequence in the language of the model, including the prompt."""
        return self.language.text(list(self.ids))

    @property
    def structure(self) -> Structure:
        """The crystal that `energy` is of: `relaxed` where there is one, else `generated`.

        Raises:
            TextError: what was written is no crystal.
        """
        return self.generated if self.relaxed is None else self.relaxed

    @cached_property
    def generated(self) -> Structure:
        """The conventional cell that the tokens describe, as it was before any relaxation.

        Raises:
            TextError: not a crystal.
        """
        if not self.ended:
            raise TextError(f"unfinished after {len(self.ids)} tokens")
        return self.language.decode(list(self.ids))

    @cached_property
    def text(self) -> str:
        """The CIF text of `generated` in the published language, whichever the language of the model.

        Raises:
            TextError: not a crystal.
        """
        return self.language.standard_text(list(self.ids))

    @property
    def cif(self) -> str:
        """A CIF of `structure` with all operators of its space group, for other programs.

        Raises:
            TextError: not a crystal.
        """
        if self.relaxed is None:
            return self.generated_cif
        from crystallm.energy.relaxation import to_cif

        return to_cif(self.relaxed)

    @cached_property
    def generated_cif(self) -> str:
        """A CIF of `generated`; see `cif`."""
        from crystallm.cif import writer

        if not self.ended:
            raise TextError(f"unfinished after {len(self.ids)} tokens")
        return writer.to_cif(self.text)

    @cached_property
    def atoms(self) -> Any:
        """`structure` as an ASE Atoms object.

        Raises:
            TextError: not a crystal.
            InputError: ASE is not installed.
        """
        from crystallm.structures.conversion import to_atoms

        return to_atoms(self.structure)

    def _repr_html_(self) -> str:
        """Return an interactive drawing of the cell for notebooks."""
        import html

        from crystallm.visualization import notebook_view

        try:
            structure, group = self.structure, self.space_group
        except CrystallmError:
            return f"<pre>{html.escape(repr(self))}</pre>"
        a, b, c = structure.lattice.abc
        cell = formula.of_atoms(structure.composition.get_el_amt_dict())
        return notebook_view.to_html(structure, title=f"{cell} {group}, {a:.2f} × {b:.2f} × {c:.2f} Å")

    @property
    def space_group(self) -> str:
        """Symbol of the space group that the standard text prints, `P4_2/mnm`.

        Raises:
            TextError: not a crystal.
        """
        return self._parsed.space_group

    @property
    def space_group_number(self) -> int:
        """Number of the space group in the International Tables.

        Raises:
            TextError: not a crystal.
        """
        return self._parsed.space_group_number

    @cached_property
    def _parsed(self) -> ParsedText:
        from crystallm.cif import parser

        return parser.parse(self.text)

    @property
    def checked_text(self) -> str:
        """The text that `validity` checks; empty if there is none.

        The checks of the paper read the printed text, including its rounding. That is the sampled text for
        models of the language `cif`, and the CIF for models of other languages.
        """
        if self.language.writes_cif:
            return self.sampled_text
        try:
            return self.generated_cif
        except TextError:
            return ""

    @cached_property
    def validity(self) -> Validity:
        """Results of the checks of what was generated; never raises."""
        from crystallm.validity import checks

        return self._with_reason(checks.check(self.checked_text))

    def set_validity(self, validity: Validity) -> None:
        """Set the results of the checks of `checked_text`, from a worker process."""
        self.validity = self._with_reason(validity)

    def _with_reason(self, validity: Validity) -> Validity:
        """Return the results, with the reason of the language if the text is not a crystal."""
        from dataclasses import replace

        try:
            _ = self.generated if self.language.writes_cif else self.generated_cif
        except TextError as error:
            return replace(validity, valid=False, plausible=False, reasons=(str(error),))
        return validity

    def row(self) -> dict[str, Any]:
        """Return the columns of a table that do not depend on the run; see `crystals.table`."""
        validity = self.validity
        row: dict[str, Any] = {
            "log_likelihood": self.log_likelihood,
            "n_tokens": len(self.ids),
            "ended": self.ended,
            "valid": validity.valid,
            "plausible": validity.plausible,
            "reasons": "; ".join(validity.reasons),
            "bond_score": validity.bond_score,
            "cluster": self.cluster,
            "cluster_size": self.cluster_size,
            "rank": self.rank,
            "energy": self.energy,
            "energy_reason": self.energy_reason,
            "formation_energy": self.formation_energy,
            "e_above_hull": self.e_above_hull,
        }
        if self.source is not None:
            row |= {"model": self.source.model, "seed": self.source.seed, "sample_index": self.source.index}
            names = ("z_probability", "space_group_probability")
            row |= {name: getattr(self.source, name) for name in names}
            row["conditions"] = self.source.conditions or None
            if (relative := self.source.relative) is not None:
                row |= {
                    "relative": relative.id,
                    "relative_formula": relative.formula,
                    "relative_distance": relative.distance,
                }
        try:
            structure, cif_text = self.structure, self.cif
            row |= {"space_group": self.space_group, "space_group_number": self.space_group_number}
        except TextError:
            row["text"] = self.sampled_text
            return row
        counts = {
            str(symbol): round(count) for symbol, count in structure.composition.get_el_amt_dict().items()
        }
        made = formula.cell("".join(f"{symbol}{count}" for symbol, count in counts.items()))
        lattice = structure.lattice
        row |= dict(zip(("a", "b", "c"), lattice.abc, strict=True))
        row |= dict(zip(("alpha", "beta", "gamma"), lattice.angles, strict=True))
        return row | {
            "formula": made.formula,
            "reduced_formula": made.reduced_formula,
            "z": made.z,
            "n_atoms": len(structure),
            "volume_per_atom": lattice.volume / len(structure),
            "text": self.text,
            "cif": cif_text,
        }
