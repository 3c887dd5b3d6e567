from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import crystallm

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_public_names_are_there():
    assert set(crystallm.__all__) <= set(dir(crystallm))
    for name in crystallm.__all__:
        assert getattr(crystallm, name) is not None
    modules = {
        "cif": "cif",
        "formula": "crystallography.formula",
        "orbits": "orbits",
        "spacegroups": "crystallography.space_groups",
        "tokenizer": "tokenizer",
        "validity": "validity",
    }
    for name, module in modules.items():
        assert getattr(crystallm, name) is importlib.import_module(f"crystallm.{module}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = crystallm.nothing


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, crystallm; sys.exit(bool({'torch', 'pymatgen', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_generate_stays_a_function_when_its_module_is_imported():
    module = importlib.import_module("crystallm.generation.generate")
    assert callable(crystallm.generate)
    assert crystallm.generate is module.generate


def test_the_version_is_one_in_all_places():
    citation = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == crystallm.__version__
    assert f"\nversion: {crystallm.__version__}\n" in citation


def test_the_package_is_typed():
    assert resources.files("crystallm").joinpath("py.typed").is_file()


def test_runtime_dependencies_are_ranges():
    assert not [name for name in PROJECT["project"]["dependencies"] if "==" in name]


def test_the_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    asked = list(PROJECT["project"]["dependencies"])
    for extra in ("test", "lint"):
        asked += PROJECT["project"]["optional-dependencies"][extra]
    names = {name.split(">")[0].split("=")[0].lower() for name in asked}
    assert names <= pinned


CROWDED = """
import sys
import numpy as np, spglib
import crystallm
from crystallm import spacegroups
from crystallm.crystallography import cells
rng = np.random.default_rng(0)
for _ in range(1500):  # atoms near each other in cells of low symmetry: some are more than spglib can take
    group = spacegroups.get(int(rng.choice([12, 15, 63, 62, 14, 36, 164, 166, 8, 5])))
    free = {p: rng.uniform(3, 9) if len(p) == 1 else rng.uniform(80, 110) for p in group.free_cell}
    points, numbers = [], []
    for number in (11, 17, 8):
        position = group.wyckoff[int(rng.integers(len(group.wyckoff)))]
        points.append(group.orbit(position.point(rng.random(len(position.free)) * 0.06)))
        numbers += [number] * len(points[-1])
    cell = (cells.lattice(group.complete_cell(free)), np.vstack(points), numbers)
    spglib.get_symmetry_dataset(cell, symprec=0.1, angle_tolerance=5)
"""


@pytest.mark.parametrize(("asked", "quiet"), [(None, True), ("ON", False)])
def test_spglib_keeps_quiet_unless_asked(asked, quiet, monkeypatch):
    monkeypatch.delenv("SPGLIB_WARNING", raising=False)
    if asked:
        monkeypatch.setenv("SPGLIB_WARNING", asked)
    command = [sys.executable, "-W", "ignore", "-c", CROWDED]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("spglib:" not in run.stderr) == quiet


def test_what_gets_an_extra_is_said_in_one_place(monkeypatch):
    from crystallm import errors
    from crystallm.cli import command_loader
    from crystallm.cli.commands.energies import relax

    package = Path(crystallm.__file__).parent
    code = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    asked = {name for text in code.values() for name in re.findall(r"\binstall\([\"'](\w+)[\"']\)", text)}
    asked |= {name for text in code.values() for name in re.findall(r"crystallm\[(\w+)\]", text)}
    assert {"energy", "ase", "zmq", "bench", "web", "cluster"} <= asked
    assert asked <= PROJECT["project"]["optional-dependencies"].keys()
    spelled = {name for name, text in code.items() if "pip install 'crystallm[" in text}
    # Elsewhere in the help of commands alone, which says what the one place says.
    assert all(name == "errors.py" or name.startswith("cli/commands/") for name in spelled)
    assert command_loader.install is errors.install
    monkeypatch.setattr(command_loader, "install", lambda extra: f"conda install crystallm-{extra}")
    assert "Needs conda install crystallm-energy. With --out" in command_loader.help_text(relax)
