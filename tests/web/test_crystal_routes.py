"""Files, powder patterns and archives of crystals over HTTP."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest

from energies import Morse


@pytest.mark.parametrize("form", ["cif", "poscar", "extxyz"])
@pytest.mark.parametrize("relaxation", [False, True])
def test_files_hold_the_crystal_of_the_summary(form, relaxation, served, relaxed):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    from crystallm.structures import conversion

    summary = relaxed["crystals"][0]
    path = f"/api/v1/jobs/{relaxed['id']}/crystals/0/file?form={form}&relaxed={str(relaxation).lower()}"
    answer = served.get(path)
    assert answer.status == 200
    assert "attachment" in answer.headers["content-disposition"]
    text = answer.body.decode()
    if form == "extxyz":
        from ase.io import read
        from pymatgen.io.ase import AseAtomsAdaptor

        atoms = read(io.StringIO(text), format="extxyz")
        found = AseAtomsAdaptor.get_structure(atoms)
        (known,) = Morse().predict([found])
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(known.energy, abs=1e-5)
    else:
        found = Structure.from_str(text, fmt=form)
    expected = conversion.from_json((summary["relaxed"] if relaxation else summary)["structure"])
    assert len(found) == len(expected)
    assert found.volume == pytest.approx(expected.volume, rel=1e-4)
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.01, scale=False, primitive_cell=False)
    assert matcher.fit(found, expected)


def test_a_pattern_has_the_peaks_of_its_cell(served):
    state = served.done(
        {"kind": "generate", "formula": "NaCl", "z": 4, "space_group": 225, "n": 1, "seed": 1}
    )
    a = state["crystals"][0]["cell"][0]
    found = served.get(f"/api/v1/jobs/{state['id']}/crystals/0/pattern").json
    peaks = {tuple(sorted(map(abs, peak["hkl"][0]))): peak for peak in found["peaks"]}
    assert peaks[0, 0, 2]["d"] == pytest.approx(a / 2, abs=1e-3)
    assert (0, 0, 1) not in peaks  # F-centred


def test_an_archive_holds_all_formats_and_facts(served, relaxed):
    answer = served.get(f"/api/v1/jobs/{relaxed['id']}/archive")
    assert 'filename="TiO2-seed5.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        names = archive.namelist()
        facts = json.loads(archive.read("crystals.json"))
        written = {name: archive.read(name).decode() for name in names if name.startswith("extxyz/")}
    assert sum(name.startswith("cif/") for name in names) == 2
    assert sum(name.startswith("relaxed/") for name in names) == 2
    assert {name.rpartition(".")[2] for name in names} == {"cif", "vasp", "extxyz", "json"}
    assert facts["request"]["seed"] == 5
    assert len(facts["crystals"]) == 2
    for one in relaxed["crystals"]:  # as they were written, and so their energies
        (text,) = [text for name, text in written.items() if name.endswith(f"-{one['number']:04d}.extxyz")]
        (energy,) = re.findall(r"energy=(\S+)", text)
        assert float(energy) / one["n_atoms"] == pytest.approx(one["relaxed"]["energy_before"], abs=1e-5)
