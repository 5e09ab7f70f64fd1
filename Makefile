# Two commands set everything up on a machine with python3 (>= 3.11), python3-venv and make: `make demo`, `make test`.
#
#   PYTHON=python3.12   the interpreter that makes the environment
#   VENV=.venv          where the environment is made
#   TORCH_INDEX=URL     an index that holds the build of torch you want, such as
#                       https://download.pytorch.org/whl/cpu (PyPI gives Linux the CUDA build, several GB)

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
# Compiling all of torch and transformers to bytecode would be two thirds of the installation, and most of it is never
# imported: Python compiles what it uses, once. So it must be allowed to write that down, whatever the user's shell says.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PINNED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install install-dev test test-slow check format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Install into .venv, then run `edgekd compress --latency-ms 10` on the embedded demo
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory install || exit $$?; \
	ready=$$(date +%s); \
	$(BIN)/edgekd compress --latency-ms 10 --out ./bundle; code=$$?; \
	echo "installation: $$((ready - start)) s; edgekd compress: $$(($$(date +%s) - ready)) s"; \
	exit $$code

install: $(VENV)/.installed-cpu ## Install EdgeKD with the extras cpu and demo

install-dev: $(VENV)/.installed-dev ## Install what the tests and checks need as well

test: install-dev ## Run the fast tests
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: install-dev ## Run the slow tests (minutes)
	$(BIN)/python -m pytest -q -m slow

check: install-dev ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-dev ## Let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## Remove the environment, caches and build outputs (never a bundle)
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
	find edgekd tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment has no stamp, so the next run makes it afresh.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "EdgeKD needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	@# The pip of Debian 12 backtracks for minutes on this set of packages.
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	@touch $@

$(VENV)/.installed-cpu: $(PINNED) | $(VENV)/.made
	@echo "installing EdgeKD and what it needs into $(VENV); this takes a minute or more"
	$(INSTALL) -e ".[cpu,demo]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-cpu
	$(INSTALL) -e ".[cpu,demo,dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-cpu
	$(INSTALL) -e ".[docs]"
	@touch $@
