# Every task by one name. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MARKS  := .make
JOBS   ?= 2
# git shows notebooks as scripts, and merges them cell by cell
GIT    := git config diff.jupytext.textconv "$(CURDIR)/$(BIN)/jupytext --to py:percent --opt cell_metadata_filter=tags --output -"; \
          git config merge.notebook.name "notebooks, cell by cell"; \
          git config merge.notebook.driver "PYTHONPATH=book $(BIN)/python -m press.merge %O %A %B %P"
RUN    := PYTHONPATH=book $(BIN)/python -m
PIP    := $(BIN)/pip install -q

NOTEBOOKS := $(wildcard nbs/*.ipynb)
# files are UTF-8 whatever this user's locale is
export PYTHONUTF8 = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

.DEFAULT_GOAL := help
.PHONY: help book html pdf widgets export run check text sync lab test test-rest test-all tools lint mutants test-gpu wheel clean FORCE

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
	@if [ -e .git ]; then $(GIT); fi
	@touch $@

# ---- from notebooks to the package ----

export: $(MARKS)/book-tools ## write tinyllm/ from nbs/, also what was edited there by hand
	@$(RUN) press.export

run: $(MARKS)/test-tools export ## export, execute changed notebooks, store what they print (FRESH=1: times too)
	@echo "[run] executing notebooks (two at a time)"
	@$(RUN) press.execute --stale $(if $(FRESH),--fresh) $(CHAPTER)

text: $(MARKS)/book-tools ## open every notebook as a percent script in .text/
	@mkdir -p .text
	@$(RUN) press.nb $(NOTEBOOKS)
	@$(BIN)/jupytext --quiet --sync $(NOTEBOOKS)
	@touch .text/synced
	@echo "edit .text/*.py, then: make sync"

sync: $(MARKS)/book-tools ## fold edits of .text/ back into nbs/, outputs kept
	@$(RUN) press.nb $(NOTEBOOKS)
	@test -e .text/synced || { echo "nothing is open as text: make text, edit, then make sync"; exit 1; }
	@edited=$$(find .text -name '*.py' -newer .text/synced) && \
	  { [ -z "$$edited" ] || $(BIN)/jupytext --quiet --sync $$edited; } && touch .text/synced
	@$(RUN) press.execute --tidy
	@$(MAKE) -s export

lab: $(MARKS)/test-tools ## open the notebooks in JupyterLab
	@$(PIP) --group lab
	@$(BIN)/jupyter lab nbs

# ---- from notebooks to the book ----

widgets: | $(MARKS)/venv ## bundle book/widgets for the book and for the server's live page (lit and esbuild come from npm)
	@$(RUN) press.bundle

book: export widgets ## render _book/index.html and _book/tinyllm.pdf (FORMAT=html or pdf for one)
	@if [ -z "$(PRESS)" ] && $(BIN)/python book/press/which_quarto.py; then \
	  quarto render $(if $(FORMAT),--to $(subst pdf,typst,$(FORMAT))); \
	else \
	  $(RUN) press $(or $(FORMAT),all); \
	fi

# ---- proof ----

tools: $(MARKS)/test-tools

TESTED := $(MARKS)/test-tools export widgets lint
PYTEST  = $(BIN)/python -m pytest tests --ignore=tests/gpu -n $(JOBS) --dist loadgroup --no-loadscope-reorder

test: $(TESTED) ## what any machine proves in minutes (JOBS=2 at a time, ARGS="-k tokens -x" goes to pytest)
	@$(PYTEST) -m "not rest" $(ARGS)

test-rest: $(TESTED) ## what that leaves out: every notebook and widget, launches of ranks, the printed book
	@$(PYTEST) -m rest $(ARGS)

test-all: $(TESTED) ## both
	@$(PYTEST) $(ARGS)

lint: $(MARKS)/test-tools
	@$(BIN)/ruff check -q .

mutants: $(MARKS)/test-tools export ## break a line, see its test fail, line after line (QUICK=1: a few)
	@$(BIN)/python tests/mutants.py $(if $(QUICK),--quick)

test-gpu: ## kernels, graphs and overlap, on a CUDA machine with torch and pytest
	$(PYTHON) -m pytest tests/gpu $$($(PYTHON) -c "import xdist; print('-n 14 --dist worksteal')" 2>/dev/null)

wheel: $(MARKS)/test-tools export widgets ## dist/tinyllm_book-*.whl
	@rm -rf build
	@$(BIN)/python -m build --wheel --no-isolation -o dist . >/dev/null
	@ls -l dist/*.whl

clean: ## remove everything that make made (the environment too)
	rm -rf $(VENV) $(MARKS) _book dist build .text book/widgets/node_modules *.egg-info book/kit/*.egg-info .pytest_cache .ruff_cache .hypothesis
