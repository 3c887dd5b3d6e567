#!/usr/bin/env bash
# Build wheel and sdist, install the wheel in a bare environment, and see whether a newcomer gets a crystal and its
# picture. Says how large the files are and how long the way took.
#
#     scripts/smoke.sh [FOLDER]         PYTHON=python3.12 scripts/smoke.sh
#
# The versions of constraints.txt are taken unless CONSTRAINTS= (empty) is given.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=${1:-$(mktemp -d)}
python=${PYTHON:-python3}
constraints=${CONSTRAINTS-"-c $root/constraints.txt"}
mkdir -p "$place"

echo "== build"
"$python" -m venv "$place/builder"
# shellcheck disable=SC2086
"$place/builder/bin/python" -m pip install -q --disable-pip-version-check $constraints hatchling
(cd "$root" && "$place/builder/bin/python" -m hatchling build -d "$place/dist" >/dev/null)
ls -l "$place/dist" | awk 'NR > 1 { printf "%s: %.1f MB\n", $NF, $5 / 1e6 }'

echo "== install"
rm -rf "$place/bare"
"$python" -m venv "$place/bare"
# torch first and alone, by its plain name: pip then takes the build that this machine's index offers.
# shellcheck disable=SC2086
"$place/bare/bin/python" -m pip install -q --disable-pip-version-check $constraints torch
began=$(date +%s.%N)
# shellcheck disable=SC2086
"$place/bare/bin/python" -m pip install -q --disable-pip-version-check $constraints "$place"/dist/*.whl
installed=$(date +%s.%N)

echo "== a first crystal, its CIF and its picture"
rm -rf "$place/work"
mkdir -p "$place/work"
cd "$place/work"  # away from the sources: what is imported is what was installed
"$place/bare/bin/crystallm" generate TiO2 --z 2 --space-group P4_2/mnm -n 5 --seed 1 --out rutile
"$place/bare/bin/python" - <<'PYTHON'
from pathlib import Path

import crystallm
from crystallm.visualization.unit_cell import unit_cell

assert "site-packages" in crystallm.__file__, crystallm.__file__
# Equal crystals are folded by pymatgen's matcher: of six samples of rutile, at least two are equal.
folded = crystallm.generate("TiO2", z=2, space_group="P4_2/mnm", n=6, seed=1,
                            selection=crystallm.SelectionOptions(rank="agreement"))
assert max(c.cluster_size or 0 for c in folded) > 1, [c.cluster_size for c in folded]

crystals = crystallm.generate("MgAl2O4", z=8, space_group="Fd-3m", n=3, seed=1)
best = max((c for c in crystals if c.validity.valid), key=lambda c: c.log_likelihood)
Path("spinel.png").write_bytes(unit_cell(best.structure, title=repr(best)))
PYTHON
pictured=$(date +%s.%N)
"$place/bare/bin/crystallm" export rutile --to poscar --out poscars
"$place/bare/bin/crystallm" score rutile --quiet --out scores.csv
"$place/bare/bin/crystallm" models
test -s spinel.png
test "$(find rutile/cifs -name '*.cif' | wc -l)" = 5
test "$(wc -l < scores.csv)" = 6

awk -v a="$began" -v b="$installed" -v c="$pictured" \
    'BEGIN { printf "== sound: %.0f s to install what is not torch, %.0f s more to the first picture\n", b - a, c - b }'
