# The targets that people, hosted CI and a fresh machine call; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo train test test-all lint format bench bench-gpu tensorboard pictures clean

VENV ?= .venv
BIN := $(VENV)/bin
MANIFEST := .ifmos/demo.csv
# Processes of `make test`; a file's tests stay together, since they share what they trained.
WORKERS ?= 2

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/.installed ## make the virtual environment .venv with the tested versions

$(MANIFEST): | setup
	$(BIN)/doctune scan --preset machine --min-per-class 30 --out $(MANIFEST)

demo: setup $(MANIFEST) ## find real files on this machine, train a small classifier on them, show what came of it
	$(BIN)/python train.py experiment=demo data.manifest=$(MANIFEST)
	@echo "In this shell first: source $(BIN)/activate"

train: setup ## make a run: make train ARGS='model=distilbert data=ifmos'
	$(BIN)/python train.py $(ARGS)

test: setup ## the tests, some twenty minutes on two cores
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile

test-all: setup ## those marked slow too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup $(MANIFEST) ## the benchmarks that need no GPU, into benchmarks/RESULTS.md: DOCTUNE_DATA=… make bench
	$(BIN)/python benchmarks/run_all.py $(MANIFEST)

bench-gpu: setup ## the one that needs a CUDA device: speed, memory and a large job
	$(BIN)/python benchmarks/gpu_training.py --out benchmarks/gpu_training.json

tensorboard: setup ## watch the curves of all runs in a browser
	$(BIN)/tensorboard --logdir outputs

pictures: setup ## the README's pictures, with chromium, of the newest finished run or RUN=outputs/<date>/<time>
	$(BIN)/python docs/pictures/make_pictures.py "$(RUN)"

clean: ## remove caches and the demo's manifest; runs and the environment stay
	rm -rf .doctune .ifmos/demo.csv .ifmos/demo_stats.json .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
