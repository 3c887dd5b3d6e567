"""The coordinates of an atom row."""

from __future__ import annotations

import random

import numpy as np
import pytest

from crystallm.cif import block as cif_block
from crystallm.cif import tokenizer, writer
from crystallm.crystallography import space_groups
from crystallm.errors import InputError
from crystallm.grammar.cif.coordinates import Placement
from crystallm.grammar.cif.state import CifGrammar
from crystallm.grammar.cif.wyckoff_grid import GRID, sites
from walks import forced, offered

RUTILE = "\n".join(
    (
        writer.head({"Ti": 2, "O": 4}.items()),
        *writer.properties(["Ti", "O"]),
        writer.group_line("P4_2/mnm"),
        "_cell_length_a 4.6000\n_cell_length_b 4.6000\n_cell_length_c 2.9600",
        "_cell_angle_alpha 90.0000\n_cell_angle_beta 90.0000\n_cell_angle_gamma 90.0000",
        "_symmetry_Int_Tables_number 136\n_chemical_formula_structural TiO2\n_chemical_formula_sum 'Ti2 O4'",
        "_cell_volume 62.6336\n_cell_formula_units_Z 2",
        "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 'x, y, z'",
        "loop_",
        *cif_block.ATOM_LOOP,
        "Ti Ti0 2 0.0000 0.0000 0.",
    )
)


def test_coordinates_follow_from_those_before():
    rules = CifGrammar("full", {"Ti": 2, "O": 4}, 136)
    assert offered(rules, RUTILE) == "05"  # 2a: (0, 0, 0); 2b: (0, 0, 1/2)
    oxygen = RUTILE + "0000 1.0\nO O1 4 0.3053 0."
    assert offered(rules, oxygen) == "36"  # 4f: (x, x, 0); 4g: (x, -x, 0)
    assert offered(rules, oxygen + "3") == "0"
    assert forced(rules.start(tokenizer.encode(oxygen + "6"))) == "947 "
    with pytest.raises(InputError, match=r"'4' is not allowed here; allowed: '0'"):
        rules.start(tokenizer.encode(oxygen + "34"))


def generic(group, position, rng):
    """Free parameters of a point that is clear of positions of higher symmetry."""
    while True:
        found = [rng.random() for _ in position.free]
        images = group.images(position.point(found))
        off = images - images[0]
        off = np.abs(off - np.rint(off)).max(axis=1)
        if not ((off > 1e-9) & (off < 2e-3)).any():
            return found


@pytest.mark.parametrize("number", [12, 62, 136, 152, 166, 181, 187, 194, 205, 220, 227])
def test_coordinates_against_the_geometry(number):
    """What is allowed lies on a position of the multiplicity; all points of the positions are allowed."""
    group, rng = space_groups.get(number), random.Random(number)
    for position in group.wyckoff[:-1]:
        here = sites(number, position.multiplicity)
        limits = dict.fromkeys([*here.fixed, -1], None)
        for _ in range(4):
            point = position.point(generic(group, position, rng))
            image = rng.choice(list(group.images(point) % 1.0))
            placement = Placement(here, limits, None, {})
            for x in image:
                value = round(x * GRID) % GRID
                mask, _ = placement.mask()
                assert mask[value], (position.label, image)
                placement.take(value)
            assert group.wyckoff[placement.site()[0]].multiplicity == position.multiplicity
            placement = Placement(here, limits, None, {})
            for _ in range(3):
                placement.take(rng.choice(np.flatnonzero(placement.mask()[0]).tolist()))
            printed = np.array(placement.rank) / GRID
            snapped = group.snap(printed, position.multiplicity, 2e-4)
            assert snapped is not None, (position.label, printed)
            assert len(group.orbit(snapped[1])) == position.multiplicity
