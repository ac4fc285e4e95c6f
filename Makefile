# Every task by one name. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MARKS  := .make
JOBS   ?= 2
RUN    := PYTHONPATH=book $(BIN)/python -m
PIP    := $(BIN)/pip install -q

NOTEBOOKS := $(wildcard nbs/*.ipynb)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

.DEFAULT_GOAL := help
.PHONY: help book html pdf widgets export run check text sync lab test tools lint mutants test-gpu wheel clean FORCE

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- environments: the book needs neither torch nor a GPU; tests and notebooks need both groups ----

# a copy that changes only with the content: some tools rewrite pyproject.toml with the same text
$(MARKS)/pins: FORCE
	@mkdir -p $(MARKS); cmp -s pyproject.toml $@ || cp pyproject.toml $@

$(MARKS)/venv: $(MARKS)/pins
	@echo "[venv] making $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"tinyllm needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "pip>=25.1"
	@touch $@

$(MARKS)/book-tools: $(MARKS)/venv
	@echo "[install] what rendering needs (nbdev, jupytext, pandoc, typst)"
	@$(PIP) --group book
	@$(MAKE) -s $(MARKS)/package
	@touch $@

$(MARKS)/test-tools: $(MARKS)/book-tools # part of it, and never two installers at once
	@echo "[install] what running and testing needs (torch, transformers, pytest, ...)"
	@$(PIP) --group test
	@$(MAKE) -s $(MARKS)/package
	@touch $@

$(MARKS)/package: $(MARKS)/venv book/kit/pyproject.toml
	@$(PIP) "setuptools>=77.0.3"
	@PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation -e . -e book/kit
	@if [ -d .git ]; then git config diff.jupytext.textconv "$(CURDIR)/$(BIN)/jupytext --to py:percent --opt cell_metadata_filter=tags --output -"; fi
	@touch $@

# ---- from notebooks to the package ----

export: $(MARKS)/exported ## write tinyllm/ from nbs/
$(MARKS)/exported: $(NOTEBOOKS) settings.ini | $(MARKS)/book-tools
	@echo "[export] nbs/ -> tinyllm/"
	@$(BIN)/nbdev_export
	@touch $@

run: $(MARKS)/test-tools $(MARKS)/exported ## export, execute changed notebooks, store their outputs
	@echo "[run] executing notebooks (two at a time)"
	@$(RUN) press.execute --stale $(CHAPTER)

text: $(MARKS)/book-tools ## open every notebook as a percent script in .text/
	@mkdir -p .text
	@$(BIN)/jupytext --quiet --sync $(NOTEBOOKS)
	@echo "edit .text/*.py, then: make sync"

sync: $(MARKS)/book-tools ## fold edits of .text/ back into nbs/, outputs kept
	@$(BIN)/jupytext --quiet --sync .text/*.py
	@$(RUN) press.execute --tidy
	@$(MAKE) -s export

lab: $(MARKS)/test-tools ## open the notebooks in JupyterLab
	@$(PIP) --group lab
	@$(BIN)/jupyter lab nbs

# ---- from notebooks to the book ----

widgets: | $(MARKS)/venv ## bundle book/widgets for the book and for the server's live page (lit and esbuild come from npm)
	@$(RUN) press.bundle

book: $(MARKS)/exported widgets ## render _book/index.html and _book/tinyllm.pdf (FORMAT=html or pdf for one)
	@if [ -z "$(PRESS)" ] && $(BIN)/python book/press/which_quarto.py; then \
	  quarto render $(if $(FORMAT),--to $(subst pdf,typst,$(FORMAT))); \
	else \
	  $(RUN) press $(or $(FORMAT),all); \
	fi

# ---- proof ----

tools: $(MARKS)/test-tools

test: $(MARKS)/test-tools $(MARKS)/exported widgets lint ## everything: chapters, package, book (JOBS=2 at a time)
	@$(BIN)/python -m pytest tests --ignore=tests/gpu -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: $(MARKS)/test-tools
	@$(BIN)/ruff check -q .

mutants: $(MARKS)/test-tools $(MARKS)/exported ## break a line, see its test fail, line after line (QUICK=1: a few)
	@$(BIN)/python tests/mutants.py $(if $(QUICK),--quick)

test-gpu: ## kernels, graphs and overlap, on a CUDA machine with torch and pytest
	$(PYTHON) -m pytest tests/gpu $$($(PYTHON) -c "import xdist; print('-n 14 --dist worksteal')" 2>/dev/null)

wheel: $(MARKS)/test-tools $(MARKS)/exported widgets ## dist/tinyllm_book-*.whl
	@rm -rf build
	@$(BIN)/python -m build --wheel --no-isolation -o dist . >/dev/null
	@ls -l dist/*.whl

clean: ## remove everything that make made (the environment too)
	rm -rf $(VENV) $(MARKS) _book dist build .text book/widgets/node_modules *.egg-info book/kit/*.egg-info .pytest_cache .ruff_cache .hypothesis
