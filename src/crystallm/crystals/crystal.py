"""One crystal that a network wrote, and all that is known of it.

Everything is worked out from the tokens when it is first asked for. Knows no networks and writes no files.
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
        request: what was asked, one line for a person.
        z_probability: where Z was chosen, its probability among the values tried.
        space_group_probability: where the space group was chosen, its probability among those of this Z.
        relative: known crystal that it was made of; None where a network sampled it.
    """

    model: str
    seed: int
    index: int
    request: str
    z_probability: float | None = None
    space_group_probability: float | None = None
    relative: Relative | None = None


class Crystal:
    """One crystal.

    A network may write what is no crystal. Then `structure`, `cif` and `text` raise a TextError that says
    what is wrong, and `validity` says so without raising.

    Args:
        language: of the tokens.
        ids: all tokens, prompt and end among them.
        n_prompt: how many of them say what was asked for.
        log_likelihood: of what was not asked for, the other tokens and Z where it was chosen, under the
            network at temperature 1, nats.
        ended: whether the network came to an end, and was not cut off.
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
        """eV per atom of `structure`, where an energy model has been asked; None before."""
        self.energy_reason: str | None = None
        """Why the model has told no energy, where it was asked."""
        self.formation_energy: float | None = None
        """eV per atom, where it was asked for and the elements have energies; see `energy.formation`."""
        self.e_above_hull: float | None = None
        """eV per atom above the hull of known entries, where one was given; see `energy.hull`."""
        self.relaxed: Structure | None = None
        """The relaxed structure, where it was relaxed with an energy model; None before."""
        self.cluster: int | None = None
        """Number of its cluster of equal crystals of the request, where these were folded."""
        self.cluster_size: int | None = None
        """Crystals in its cluster."""
        self.rank: int | None = None
        """Its place in the request, 1 for the best; distinct crystals come before repeats."""

    def __repr__(self) -> str:
        try:
            return f"<Crystal {formula.short(self.structure.formula)} {self.space_group}>"
        except CrystallmError as error:
            return f"<Crystal, broken: {error}>"

    @cached_property
    def written(self) -> str:
        """What the network wrote, in its own language, prompt included."""
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
            TextError: what was written is no crystal.
        """
        if not self.ended:
            raise TextError(f"unfinished after {len(self.ids)} tokens")
        return self.language.decode(list(self.ids))

    @cached_property
    def text(self) -> str:
        """The standard text of `generated`, whichever language the network writes.

        Raises:
            TextError: what was written is no crystal.
        """
        return self.language.standard_text(list(self.ids))

    @property
    def cif(self) -> str:
        """A CIF of `structure` with all operators of its space group, for other programs.

        Raises:
            TextError: what was written is no crystal.
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
            TextError: what was written is no crystal.
            InputError: ASE is not installed.
        """
        from crystallm.structures.conversion import to_atoms

        return to_atoms(self.structure)

    def _repr_html_(self) -> str:
        """For notebooks: a drawing of the cell that can be turned."""
        import html

        from crystallm.visualization import notebook_view

        try:
            structure, group = self.structure, self.space_group
        except CrystallmError:
            return f"<pre>{html.escape(repr(self))}</pre>"
        a, b, c = structure.lattice.abc
        cell = formula.short(structure.formula)
        return notebook_view.to_html(structure, title=f"{cell} {group}, {a:.2f} × {b:.2f} × {c:.2f} Å")

    @property
    def space_group(self) -> str:
        """Symbol of the space group that the standard text prints, `P4_2/mnm`.

        Raises:
            TextError: what was written is no crystal.
        """
        return self._parsed.space_group

    @property
    def space_group_number(self) -> int:
        """Its number in the International Tables.

        Raises:
            TextError: what was written is no crystal.
        """
        return self._parsed.space_group_number

    @cached_property
    def _parsed(self) -> ParsedText:
        from crystallm.cif import parser

        return parser.parse(self.text)

    @property
    def judged(self) -> str:
        """The text that `validity` judges.

        The paper's checks read the text as it was written, rounding and all. That is right for a network that
        writes `cif`; of another language the CIF is judged, which a person would get.
        """
        if self.language.writes_cif:
            return self.written
        try:
            return self.generated_cif
        except TextError:
            return ""

    @cached_property
    def validity(self) -> Validity:
        """The verdict on what was generated; never raises."""
        from crystallm.validity import checks

        return self._with_why(checks.check(self.judged))

    def judge(self, verdict: Validity) -> None:
        """Set the verdict on `judged` that a worker process has found."""
        self.validity = self._with_why(verdict)

    def _with_why(self, verdict: Validity) -> Validity:
        """Of a text that is no crystal, the language knows best what is wrong."""
        from dataclasses import replace

        try:
            _ = self.generated if self.language.writes_cif else self.generated_cif
        except TextError as error:
            return replace(verdict, valid=False, plausible=False, reasons=(str(error),))
        return verdict

    def row(self) -> dict[str, Any]:
        """What is known of it, as the columns of a table; those that only a run knows are left out."""
        verdict = self.validity
        row: dict[str, Any] = {
            "log_likelihood": self.log_likelihood,
            "n_tokens": len(self.ids),
            "ended": self.ended,
            "valid": verdict.valid,
            "plausible": verdict.plausible,
            "reasons": "; ".join(verdict.reasons),
            "bond_score": verdict.bond_score,
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
            row |= {
                "z_probability": self.source.z_probability,
                "space_group_probability": self.source.space_group_probability,
            }
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
            row["text"] = self.written
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
