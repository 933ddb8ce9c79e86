# What a stranger types: make demo · make ui · make test
PYTHON ?= python3
PORT ?= 3000
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo ui test check format clean install

demo: install
	@$(BIN)/hsae demo

ui: install
	@$(BIN)/hsae ui --port $(PORT)

test: install
	@HSAE_EXECUTOR=in_process $(BIN)/python -m pytest -m "not slow"

test-all: install
	@HSAE_EXECUTOR=in_process $(BIN)/python -m pytest

check: install
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/dg check defs

format: install
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/hsae init
	@touch $(STAMP)

# Removes what was made (environment, records, results, fetched samples) and nothing else.
clean:
	@rm -rf $(VENV) .dagster_home .env results downloads build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -f data/movie_reviews/*.parquet data/movie_pairs/*.parquet data/convention_speeches/*.parquet data/planted/*.parquet
	@find hsae_dagster hsae_dagster_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
