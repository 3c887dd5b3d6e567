# `make demo` and `make test` set everything up themselves: a virtual environment in $(VENV), with the versions of
# constraints.txt. A stamp file in it says that it is complete; it goes stale when pyproject.toml or the constraints do.

VENV ?= .venv
# The first Python that is new enough. 3.11 first: it is the one this project is proven on.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# Workers that run side by side share the cores; without this, torch in each of them asks for all.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint format docs clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    crystals of compounds that people know, and a picture, in out/demo"
	@echo "make test    ruff, mypy and pytest"
	@echo "make format  lay out the source files"
	@echo "make docs    the documentation's site, in site/"
	@echo "make clean   take away the environment and what the tools have left"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone, by its plain name: pip then takes the build that this machine's index offers.
$(VENV)/.run-stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[energy]'
	@touch $@

$(VENV)/.test-stamp: $(VENV)/.run-stamp
	$(PIP) install -q -c constraints.txt -e '.[test,lint]'
	@touch $@

demo: $(VENV)/.run-stamp
	$(VENV)/bin/python examples/demo.py out/demo

$(VENV)/.docs-stamp: $(VENV)/.run-stamp
	$(PIP) install -q -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs-stamp
	$(VENV)/bin/zensical build

lint: $(VENV)/.test-stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict src

# Each worker takes half of the files in their order, and what the other has left when it is done: the servers,
# clusters and weights that tests share are then made once, where turns of tests would make them in both.
test: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist worksteal

format: $(VENV)/.test-stamp
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
