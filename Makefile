# Everything runs in .venv, which is made on first use and again when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIO ?= data/welcome.wav

.PHONY: setup transcribe test lint format typecheck benchmark clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@echo "Setting up $(VENV), which takes a few minutes the first time ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[development]' >&2
	@touch $@

transcribe: setup
	@$(BIN)/asr transcribe "$(AUDIO)"

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check asr tests
	$(BIN)/ruff format --check asr tests

format: setup
	$(BIN)/ruff check --fix asr tests
	$(BIN)/ruff format asr tests

typecheck: setup
	$(BIN)/mypy

benchmark: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	$(BIN)/python -m pytest tests/benchmarks -s -o addopts="" --timeout=3600

clean:
	rm -rf $(VENV)
