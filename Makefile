# `make demo` and `make test` create a virtual environment in $(VENV) with the versions of constraints.txt. A stamp file
# marks it as complete; it is rebuilt when pyproject.toml or constraints.txt changes.

VENV ?= .venv
# The first Python that is new enough. 3.11 first: this project is developed with it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# Parallel workers share the cores; without this, torch in each of them uses all.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint format docs clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    generate crystals of well-known compounds, with pictures, in out/demo"
	@echo "make test    run ruff, mypy and pytest"
	@echo "make format  format the source files"
	@echo "make docs    build the documentation site in site/"
	@echo "make clean   remove the environment and the caches of the tools"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or use make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone, by its plain name: pip then takes the build that the configured index offers.
$(VENV)/.run-stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[energy]'
	@touch $@

$(VENV)/.test-stamp: $(VENV)/.run-stamp
	$(PIP) install -q -c constraints.txt -e '.[test,lint]'
	@touch $@

demo: $(VENV)/.run-stamp
	$(VENV)/bin/python examples/demo.py out/demo
	@echo "crystals and pictures: out/demo; to use crystallm, enter its environment: . $(VENV)/bin/activate"

$(VENV)/.docs-stamp: $(VENV)/.run-stamp
	$(PIP) install -q -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs-stamp
	$(VENV)/bin/zensical build

lint: $(VENV)/.test-stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict src bench dev examples scripts

# Each worker takes half of the files in order, then steals from the other. Servers, clusters and weights that
# tests share are then created once; other schedules would create them in both workers.
test: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist worksteal

format: $(VENV)/.test-stamp
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
