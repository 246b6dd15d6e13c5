# `make` builds the book. Every target sets up what it needs; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
CASES ?= 10000
# Whatever the locale: the book speaks of 零.
export PYTHONUTF8 := 1

# Lines, spelling, terms, labels and equations of the chapters.
TEXT := $(addprefix tests/book/test_,chapters.py equations.py glossary.py prose.py)

# The interpreter that .venv is made of: python3, or a newer one where python3 is too old.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)

# How the locks are made; the same everywhere, for all systems and Pythons at once. Extras keep their
# names: pip looks for "markdown-it-py[linkify]" among the hashes under no other.
LOCK = "$(BIN)/uv" pip compile --quiet --universal --generate-hashes --no-strip-extras \
	--python-version 3.10 --no-header pyproject.toml

.PHONY: book test test-all mutants claims fuzz bench links dist serve check format audit lock relock \
	install install-dev clean distclean help
.NOTPARALLEL:
.DEFAULT_GOAL := book

# Another edition: make book DATA=mnist (or hanzi) into _build/mnist/_build/html.
DATA ?= digits
OUT ?= $(if $(filter digits,$(DATA)),.,_build/$(DATA))

book: install ## build the book into _build/html; red when anything is wrong (DATA=mnist|hanzi)
	@mkdir -p "$(OUT)/_build" && test -w "$(OUT)/_build" || { \
		echo "Cannot write into $(OUT)/_build. Name another folder: make book OUT=/path"; \
		exit 1; }
	GENBOOK_EDITION=$(DATA) "$(BIN)/jupyter-book" build . --path-output "$(OUT)" \
		-n -W --keep-going

# A process for each core, up to what fits into 8 GB. The tests of a file share what they build; files
# that take long come first.
TESTS = "$(BIN)/python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

test: install-dev ## run the tests, less the slow ones
	$(TESTS)

test-all: install-dev ## run all tests
	$(TESTS) -m ""

# Anew each time, since mutmut does not see that a test was edited. Processes with threads of OpenMP
# cannot be forked.
mutants: install-dev ## change lessons and metrics in 2,400 ways; does a test notice each? (ten minutes)
	rm -rf mutants
	OMP_NUM_THREADS=1 "$(BIN)/mutmut" run
	"$(BIN)/python" tests/mutants/report.py

bench: install ## measure how fast training is: by two processes, and beside PyTorch
	"$(BIN)/python" -W ignore benchmarks/scaling.py
	@if "$(BIN)/python" -c 'import torch' 2>/dev/null; then \
		"$(BIN)/python" -W ignore benchmarks/speed.py; \
	else \
		echo "For the comparison with PyTorch: $(BIN)/python -m pip install torch, then make bench"; \
	fi

serve: ## show the built book at http://localhost:8000 (PORT=...)
	@test -f _build/html/index.html || { echo "No book yet: run make book first."; exit 1; }
	"$(BIN)/python" -m http.server -d _build/html -b 127.0.0.1 $(PORT)

dist: install-dev ## make the wheel and the sdist into dist/
	rm -rf dist
	"$(BIN)/python" -m build

claims: install ## run the book under other arithmetic and seeds: do its claims hold? (RUNS="default avx2")
	"$(BIN)/python" -W ignore tools/claims.py $(RUNS)

links: install ## ask every host that the book links to whether its page is still there
	@mkdir -p _build
	sed 's/execute_notebooks: cache/execute_notebooks: "off"/' _config.yml > _build/links.yml
	"$(BIN)/jupyter-book" build . --config _build/links.yml --builder linkcheck \
		--path-output _build/links

install: ## set up .venv with what the book needs
	$(call SETUP,requirements.txt)

install-dev: ## set up .venv with all that making the book takes: tests, grading, tools
	$(call SETUP,requirements-dev.txt)

define SETUP
@test -n '$(PYTHON)' && command -v '$(PYTHON)' >/dev/null || { \
	echo "genbook needs Python 3.10 to 3.13. Name one: make PYTHON=/path/to/python3.11"; \
	exit 1; }
@'$(PYTHON)' tools/install.py "$(VENV)" $(1)
endef

fuzz: install-dev ## feed broken files to every loader (CASES=10000 to each of its tests)
	CASES=$(CASES) "$(BIN)/python" -m pytest tests/fuzz --hypothesis-profile=fuzz

check: install-dev ## style, types, and what takes seconds to see in the text
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"
	"$(BIN)/python" -m pytest $(TEXT)

format: install-dev ## have ruff set the code, put imports in order and mend what it can
	"$(BIN)/ruff" check --fix
	"$(BIN)/ruff" format

audit: install-dev ## look for known vulnerabilities in the locked packages (asks PyPI)
	"$(BIN)/pip-audit" --strict --require-hashes --disable-pip -r requirements-dev.txt

lock: $(BIN)/uv ## make the locks anew from pyproject.toml, everything as new as it may be
	$(LOCK) --upgrade --group book -o requirements.txt
	$(LOCK) --upgrade --all-extras --group dev -c requirements.txt -o requirements-dev.txt

relock: $(BIN)/uv ## bring the locks in line with pyproject.toml, and change nothing else
	$(LOCK) --group book -o requirements.txt
	$(LOCK) --all-extras --group dev -c requirements.txt -o requirements-dev.txt

# To lock takes uv alone, whatever else an old lock asks for.
$(BIN)/uv:
	$(MAKE) install-dev

clean: ## remove the site; finished pages and trainings stay, so the next build is quick
	rm -rf _build/html _build/.doctrees _build/jupyter_execute _build/progress

distclean: ## remove everything that was built or installed
	rm -rf _build dist mutants "$(VENV)" *.egg-info

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile
