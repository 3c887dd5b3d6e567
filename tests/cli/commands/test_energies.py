from __future__ import annotations

import pytest

from crystallm.cli import app
from crystallm.cli.commands import energies

ROW = {
    "id": "a", "formula": "Na4Cl4", "energy_before": -1.0, "energy": -1.25, "formation_energy": None,
    "e_above_hull": 0.5, "steps": 7, "converged": True, "fmax": 0.01, "space_group_before": "Fm-3m",
    "space_group": "Fm-3m", "volume_per_atom_before": 22.0, "volume_per_atom": 21.5, "cluster_size": 2,
    "reason": None, "file": "a.cif",
}  # fmt: skip
FAILED = dict.fromkeys(ROW) | {"id": "b", "reason": "x" * 200}


def test_relaxed_crystals_are_printed_with_reasons(capsys):
    energies.print_relaxed([ROW, FAILED], 3, "somewhere")
    out = capsys.readouterr().out
    assert "a ×2" in out
    assert "-1.000 → -1.250" in out
    assert "above hull" in out
    assert "formation" not in out
    assert "3 crystals, 2 kept, of these 1 relaxed, 0 not to the end; somewhere" in out
    assert "x" * 100 not in out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["relax"], "no crystals"),
        (["relax", "cifs", "--fmax", "0"], "fmax = '0'"),
        (["hull"], "no crystals"),
        (["hull", "cifs"], "no file for the entries"),
        (["energy-server", "--timeout", "0"], "timeout = '0'"),
    ],
)
def test_wrong_options_are_one_line(capsys, arguments, message):
    assert app.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
