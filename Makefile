# Every target makes the environment it needs; PYTHON chooses the interpreter (3.11 to 3.13: for
# later ones some of the pinned packages do not exist yet); by default the first found that is one.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --workflow-profile profiles/local

.PHONY: demo test test-slow test-cluster test-deaths lint format bench docs clean install viewer

demo: install demo/truth.tif
	@$(SNAKEMAKE)
	@$(BIN)/volsam summary --config config/config.yaml

test: install
	$(BIN)/python -m pytest -q

test-slow: install
	$(BIN)/python -m pytest -q -m slow

# On a SLURM that the tests start and stop: needs root and Debian's slurm-wlm and munge, or skips.
test-cluster: install
	$(BIN)/python -m pytest -q -m cluster

# Every way to die, with a log; test-cluster takes a third that changes from day to day.
test-deaths: install
	VOLSAM_DEATHS=all VOLSAM_DEATHS_LOG=deaths.log $(BIN)/python -m pytest -v -m cluster tests/cluster/test_deaths.py

lint: install demo/truth.tif
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --snakefile workflow/Snakefile --lint
	$(BIN)/volsam config-docs --check

format: install
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/snakefmt workflow

bench: install
	$(BIN)/python -m benchmarks.run

docs: install
	$(BIN)/volsam config-docs

viewer: .venv/viewer

demo/truth.tif: | .venv/installed
	$(BIN)/volsam demo demo

clean:
	rm -rf results demo

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(FITS)' || \
		{ echo 'error: volsam needs Python 3.11 to 3.13; name one: make PYTHON=<path>.' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv/viewer: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[view]'
	@touch $@
