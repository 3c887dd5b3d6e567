"""CHGNet as an energy model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from crystallm import energy


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


needs_ase, needs_chgnet, needs_sevenn = needs("ase"), needs("chgnet"), needs("sevenn")


@needs_chgnet
@needs_ase
def test_chgnet_is_loaded_without_what_it_does_not_need_and_its_package_stays_whole():
    code = (
        "import sys; from crystallm import energy; model = energy.load('chgnet', device='cpu'); "
        "print({'ase', 'matplotlib', 'scipy.signal'} & set(sys.modules)); "
        "from chgnet.model import CHGNet, CHGNetCalculator; from chgnet.utils import solve_charge_by_mag; "
        "print(CHGNetCalculator.__name__, solve_charge_by_mag.__name__, type(model._model) is CHGNet)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "CHGNetCalculator solve_charge_by_mag True"]


@needs_chgnet
@needs_ase
def test_chgnet_conforms_and_knows_rutile(textbook_structures):
    model = energy.load("chgnet", device="cpu")
    energy.check(model)
    (found,) = model.predict([textbook_structures["rutile"]], forces=True)
    # The Materials Project's energies with its corrections, on which it was trained.
    assert found.energy == pytest.approx(-9.38, abs=0.03)
