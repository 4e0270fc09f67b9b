# `make demo` and `make test` work from a fresh checkout: each creates .venv first. Or simply `pip install -e .`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-lowest lint audit bench faults clean
.DEFAULT_GOAL := demo

$(VENV)/.run: pyproject.toml
	@echo "setting up $(VENV): torch is large, so this takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev,bench]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/mmssl demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

# The lower bounds of pyproject.toml, tried: an environment of its own with exactly these versions runs the fast tests.
LOWEST := .venv-lowest
$(LOWEST)/.made: pyproject.toml scripts/lowest.py $(VENV)/.dev
	@echo "setting up $(LOWEST): another torch is downloaded, so this takes a few minutes"
	$(BIN)/python -m scripts.lowest parquet neighbours > $(VENV)/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/lowest.txt --editable '.[parquet,neighbours]' pytest hypothesis
	@touch $@

test-lowest: $(LOWEST)/.made
	$(LOWEST)/bin/python -m pytest -m 'not slow' --override-ini filterwarnings= tests/pipeline tests/trainer tests/commands

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without a network pip-audit cannot be installed, and only the lock files are checked.
audit: $(VENV)/.dev
	-$(BIN)/python -c 'import pip_audit' 2>/dev/null || $(PIP) --editable '.[audit]'
	$(BIN)/python docker/audit.py

faults: $(VENV)/.dev
	MMSSL_FAULTS=full $(BIN)/python -m pytest tests/faults

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.extract
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.frame
	$(BIN)/python -m benchmarks.serve

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
