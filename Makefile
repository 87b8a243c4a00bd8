# Everything a checkout needs. `make help` lists the targets; each sets up .venv first if it has to.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Where pip should look for torch, if not where it looks for the rest (for example an index of CPU builds).
TORCH_INDEX ?=
DEMO   ?= build/demo

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
# Some images set it; then each process of the tests would compile the packages, and pytest the tests, anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench check format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv with every library pinned in constraints.txt

# torch goes first and alone: a later requirement then finds it satisfied and fetches no other build.
# torchaudio's wheels are built against CUDA; beside a CPU torch their shared libraries cannot load, and without them
# torchaudio falls back to its pure Python parts, which are all we use.
$(READY): pyproject.toml constraints.txt shards/_weave.c shards/_sums.c shards/_spectra.c shards/_md5.c shards/_alike.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "salmonn needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11"; exit 2; }
	@echo "Setting up $(VENV) (about two minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install -q -c constraints.txt -e '.[build,train,score,chat,loggers,audit,test]'
	$(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || \
	  rm -f $(VENV)/lib/python*/site-packages/torchaudio/lib/*.so
	@$(BIN)/python -c 'import torch, torchaudio, ray, datasets, webdataset' && touch $@

demo: $(READY)  ## the whole road on bundled speech: scan, build, stream, train, evaluate, audit
	@$(BIN)/salmonn demo --out $(DEMO)

test: $(READY)  ## the tests, under five minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(READY)  ## the tests and the slow suites
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

bench: $(READY)  ## build, plan, order and stream beside their limits and their peers (half an hour)
	$(BIN)/python benchmarks/build.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/order.py
	$(BIN)/python benchmarks/stream.py --without litdata grain
	$(BIN)/python benchmarks/audit.py 2300000
	$(BIN)/python benchmarks/serve.py

check: $(READY)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff put the code in order, and make README's tables anew
	$(BIN)/python -m manifests.catalogue README.md
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the demo and the set-up made
	rm -rf build $(VENV)
