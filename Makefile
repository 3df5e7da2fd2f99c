# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV   ?= .venv
# Where pip would take a CUDA build of torch: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
BIN    := $(VENV)/bin

.PHONY: help install demo test test-all lint types unit format docs lab clean gpu-check gpu-packet gpu-pack

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## make .venv with everything the project needs

demo: install ## the whole pipeline on what the package itself holds; ends with a report
	$(BIN)/neuroprior demo --out runs/demo

test: lint types unit ## lint, types, import walls, tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# One torch thread a worker: two workers share two cores without fighting for them.
unit: install
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 -m 'not slow'

# torchattacks asks for other versions of what it hardly uses; one test's peer, it is installed without them.
test-all: lint types ## also the tests marked slow
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,docs]' nbclient ipykernel
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qqy --no-install-recommends chromium; } \
		|| echo "chromium is not installed, and pages are not looked at (apt-get install chromium)"
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2

# mkdocs-material warns of mkdocs 2, which it will not support; nothing here asks for that.
docs: install ## the documentation as a site: build/site/index.html
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -d build/site

lab: install ## the notebooks, in JupyterLab
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[lab]'
	$(BIN)/jupyter lab docs/notebooks

format: install ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu-check: install ## tests and benchmarks on the CUDA device, where there is one
	$(BIN)/python gpu/check.py

gpu-packet: install ## the next networks of the paper's campaign, for 9 minutes: build/packet, to be merged
	$(BIN)/neuroprior campaign run recipes/campaigns/paper.yaml --out build/packet

gpu-pack: install ## build/gpu-pack.tar: all that a machine with a GPU and no network needs (gpu/README.md)
	$(BIN)/python gpu/pack.py --out build/gpu-pack.tar

clean: ## remove .venv, runs, build and caches
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
