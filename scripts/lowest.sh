#!/usr/bin/env bash
# Do the lowest versions that pyproject.toml allows still work? Installs them beside the oldest Python and runs
# a part of the tests. Takes some minutes and a network; not part of `make test`.
#
#     scripts/lowest.sh [FOLDER]        PYTHON=python3.11 scripts/lowest.sh
#
# TORCH=torch==2.13.0 takes another torch, where an index has builds of old ones for CUDA alone, of gigabytes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=${1:-$(mktemp -d)}
python=${PYTHON:-python3.11}
mkdir -p "$place"

# Every >=1.2 becomes ==1.2.* (upper bounds fall away with it), for the core and what the tests need of extras.
"$python" - "$root/pyproject.toml" > "$place/lowest.txt" <<'PYTHON'
import re
import sys
import tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
asked = list(project["dependencies"])
asked += [line for line in project["optional-dependencies"]["test"] if line.startswith(("pytest>", "hypothesis"))]
asked += project["optional-dependencies"]["ase"]
for line in asked:
    name, version = re.match(r"([\w-]+)>=([\d.]+)", line).groups()
    print(f"{name}=={version}.*")
PYTHON
cat "$place/lowest.txt"
"$python" -m venv "$place/venv"
pip=("$place/venv/bin/python" -m pip install -q --disable-pip-version-check)
"${pip[@]}" "${TORCH:-$(grep '^torch==' "$place/lowest.txt")}"  # first and alone
grep -v '^torch==' "$place/lowest.txt" > "$place/others.txt"
"${pip[@]}" -r "$place/others.txt"
"${pip[@]}" --no-deps "$root"
cd "$root"
# Warnings of old libraries are no errors here.
"$place/venv/bin/python" -W default -m pytest -q -o filterwarnings=default -p no:cacheprovider \
    tests/crystals tests/models tests/crystallography tests/cif tests/sources/test_parsing.py tests/training \
    tests/export tests/generation/test_generator.py tests/generation/test_completion.py \
    tests/analysis/test_likelihood.py
