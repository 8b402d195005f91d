# Every target first sets up what it needs in .venv, once. `make` alone lists the targets.

PYTHON ?= python3
PORT ?= 8000
SCALE ?= small
N ?=

BIN := .venv/bin
READY := .venv/.ready
BOOK := _build/html/index.html
BUILD := $(BIN)/jupyter-book build . -W -n --keep-going
# Runs one stage of the tests, notes its time and end, and goes on; without arguments it tells them all.
STAGE := $(BIN)/python tests/stage.py
BOOK_SOURCES := _config.yml _toc.yml $(shell find book chapters src \
    -name __pycache__ -prune -o -name '*.egg-info' -prune -o -name .ipynb_checkpoints -prune -o -type f -print 2> /dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help book serve test check oldest newest chapters bench lock clean browser

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

book: $(BOOK) ## build the book into _build/html
	@echo "The book is at file://$(CURDIR)/$(BOOK)"

serve: $(BOOK) ## build the book and serve it at http://localhost:8000 (PORT=)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: browser $(READY) ## everything that continuous integration runs
	@rm -rf _build/stages.json chapters/runs
	$(call checks,@$(STAGE) style,@$(STAGE) types,@$(STAGE) imports,@$(STAGE) units)
	@$(STAGE) book sh -c '$(BUILD) && touch $(BOOK)'
	@$(STAGE) reading $(BIN)/pytest -n 2 tests/packaging tests/book
	@$(STAGE) chapters $(BIN)/pytest -n 2 tests/chapters
	@$(STAGE) outputs $(BIN)/pytest -n 2 --nbval --nbval-current-env --nbval-cell-timeout=1700 --timeout=1800 chapters
	@$(STAGE) measurements $(BIN)/smallnets verify --output-dir chapters/runs
	@$(STAGE)

check: $(READY) ## style, types, import rules and unit tests: about three minutes
	$(call checks)

define checks
$(1) $(BIN)/ruff check
$(1) $(BIN)/ruff format --check
$(call proofs,$(BIN),$(2),$(3),$(4))
endef

define proofs
$(2) $(1)/mypy
$(3) $(1)/lint-imports --no-logo
$(4) $(1)/pytest -n 2 --ignore=tests/packaging --ignore=tests/chapters --ignore=tests/book
endef

oldest: $(READY) ## types, import rules and unit tests with the oldest versions that pyproject.toml allows
	$(call end,lowest-direct)

newest: $(READY) ## the same with the newest
	$(call end,highest)

# One end of every range, in an environment of its own, resolved anew each time. Style is left to make check: it does not
# depend on what is installed. A cap in pip's own settings would end the ranges elsewhere than pyproject.toml does.
define end
test -x .venv-$@/bin/pip || $(BIN)/python -m venv .venv-$@
$(BIN)/uv pip compile pyproject.toml --extra notebooks --extra test --python $(BIN)/python --resolution $(1) \
    --upgrade --no-emit-index-url --no-header --no-annotate --quiet --output-file .venv-$@/versions.txt
PIP_CONSTRAINT=/dev/null .venv-$@/bin/pip install --quiet -r .venv-$@/versions.txt
.venv-$@/bin/pip install --quiet --no-deps --no-build-isolation -e .
$(call proofs,.venv-$@/bin)
endef

chapters: $(READY) ## run chapters; at SCALE=small, the default, store their outputs (N="02 05" for some)
	$(BIN)/smallnets run $(N) --scale $(SCALE) $(if $(filter small evidence,$(SCALE)),--store)

bench: $(READY) ## race the hot paths against other ways of doing the same work
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock: $(READY) ## write requirements.lock anew (UPGRADE=1 for the newest versions that pyproject.toml allows)
	$(BIN)/uv pip compile pyproject.toml --extra notebooks --extra book --extra test --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade) \
	    --output-file requirements.lock

clean: ## remove what the other targets made, except environments and runs
	rm -rf _build build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# One thread in each test process: two processes share the cores, and sums come out the same everywhere.
check test oldest newest: export OMP_NUM_THREADS = 1

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("smallnets needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv: some 3 GB to fetch where pip has them not yet, 6 GB on disk"
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# A failed build forgets the pages it has read, or the next one would not meet its warnings again.
$(BOOK): $(READY) $(BOOK_SOURCES)
	$(BUILD) || { rm -rf _build/.doctrees; exit 1; }
	@touch $@

browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	    echo "make test opens the book in a browser and finds no chromium: install it first, on Debian and Ubuntu with 'apt-get install chromium'" >&2; \
	    exit 1; }
