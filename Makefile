# Everything a newcomer needs: `make demo` shows the testbed, `make test` checks it.
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: help setup demo test test-faults soak lint format tables fuzz reproduce clean

help:
	@echo "make demo   set up, run the quickstart (emulated where that can run, else simulated), print a table and a report"
	@echo "make test   set up, run every test, but of tests/faults a short set only"
	@echo "make test-faults  set up, injure emulated runs in every way that the tests know (ten minutes or more)"
	@echo "make soak   run a million simulated flows, and emulate for half an hour, and look at the memory (MINUTES=30)"
	@echo "make lint   ruff and mypy"
	@echo "make tables run the sweeps behind the tables in docs/ again (minutes; docs/measured/README.md)"
	@echo "make fuzz   give mfs damaged files for an hour (SECONDS=3600 SEED=1)"
	@echo "make reproduce  run the experiments of the paper that are here (minutes; FULL=1: hours; experiments/paper/README.md)"
	@echo "make setup  only install what is missing"
	@echo "make clean  remove the virtual environment and caches (not your runs)"

setup:
	@scripts/bootstrap

demo: setup
	@$(BIN)/mfs run quickstart

# Tests start hundreds of processes. Where Python is told to keep no bytecode, each would compile all of our modules.
test test-faults: export PYTHONDONTWRITEBYTECODE :=

# Unit tests run in parallel. Tests that measure real traffic run after them, alone.
test:
	@scripts/bootstrap --tests
	@status=0; \
	$(BIN)/pytest --numprocesses auto --dist loadscope tests/unit || status=1; \
	$(BIN)/pytest tests/emulation tests/gpu || status=1; \
	$(BIN)/pytest tests/faults -m 'not slow' || status=1; \
	exit $$status

test-faults:
	@scripts/bootstrap --tests
	@$(BIN)/pytest tests/faults

soak: setup
	@$(BIN)/python scripts/soak --flows $(or $(FLOWS),1000000) --minutes $(or $(MINUTES),30)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

tables: setup
	@$(BIN)/python scripts/remake

# Prints each input that ends in a traceback, hangs, floods the memory or is refused without a name.
fuzz: setup
	@$(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),1)

reproduce: setup
	@for run in experiments/paper/*/run; do echo "$$run"; "$$run" $(if $(FULL),--full) || exit 1; done

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '_core.*.so' -delete
