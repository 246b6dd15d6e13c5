# `make` builds the book. Every target sets up what it needs; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
CASES ?= 10000
# Whatever the locale: the book speaks of 零.
export PYTHONUTF8 := 1

# The interpreter that .venv is made of: python3, or a newer one where python3 is too old.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$p; break; }; done)

# How the lock is made; the same everywhere, for all systems and Pythons at once.
LOCK := "$(BIN)/uv" pip compile --quiet --universal --generate-hashes --all-extras \
	--python-version 3.10 --no-header pyproject.toml

.PHONY: book test mutants fuzz bench serve check format audit lock relock clean distclean help
.DEFAULT_GOAL := book

# Another edition: make book DATA=mnist (or hanzi) into _build/mnist/_build/html.
DATA ?= digits
OUT ?= $(if $(filter digits,$(DATA)),.,_build/$(DATA))

book: $(STAMP) ## build the book into _build/html; red when anything is wrong (DATA=mnist|hanzi)
	@mkdir -p "$(OUT)/_build" && test -w "$(OUT)/_build" || { \
		echo "Cannot write into $(OUT)/_build. Name another folder: make book OUT=/path"; \
		exit 1; }
	GENBOOK_EDITION=$(DATA) "$(BIN)/jupyter-book" build . --path-output "$(OUT)" \
		-n -W --keep-going

test: $(STAMP) ## run the tests
	"$(BIN)/python" -m pytest

mutants: $(STAMP) ## change the lessons in a thousand ways; does a test notice each? (half an hour)
	"$(BIN)/mutmut" run --max-children 1
	"$(BIN)/python" tests/mutants/report.py

bench: $(STAMP) ## measure how fast training is: by two processes, and beside PyTorch
	"$(BIN)/python" -W ignore benchmarks/scaling.py
	@if "$(BIN)/python" -c 'import torch' 2>/dev/null; then \
		"$(BIN)/python" -W ignore benchmarks/speed.py; \
	else \
		echo "For the comparison with PyTorch: $(BIN)/python -m pip install torch, then make bench"; \
	fi

serve: ## show the built book at http://localhost:8000 (PORT=...)
	@test -f _build/html/index.html || { echo "No book yet: run make book first."; exit 1; }
	"$(BIN)/python" -m http.server -d _build/html -b 127.0.0.1 $(PORT)

# An install that fails or is killed leaves no stamp, so the next make does it again.
$(STAMP): requirements.txt pyproject.toml
	@test -n '$(PYTHON)' && command -v '$(PYTHON)' >/dev/null || { \
		echo "genbook needs Python 3.10 to 3.13. Name one: make PYTHON=/path/to/python3.11"; \
		exit 1; }
	@'$(PYTHON)' tools/install.py "$(VENV)"

fuzz: $(STAMP) ## feed broken files to every loader (CASES=10000 to each of its tests)
	CASES=$(CASES) "$(BIN)/python" -m pytest tests/fuzz --hypothesis-profile=fuzz

check: $(STAMP) ## style and types
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"

format: $(STAMP) ## have ruff set the code, put imports in order and mend what it can
	"$(BIN)/ruff" check --fix
	"$(BIN)/ruff" format

audit: $(STAMP) ## look for known holes in the locked packages (asks pypi.org)
	"$(BIN)/pip-audit" --strict --require-hashes --disable-pip -r requirements.txt

lock: $(STAMP) ## make requirements.txt anew from pyproject.toml, everything as new as it may be
	$(LOCK) --upgrade -o requirements.txt

relock: $(STAMP) ## bring requirements.txt in line with pyproject.toml, and change nothing else
	$(LOCK) -o requirements.txt

clean: ## remove the site; finished pages and trainings stay, so the next build is quick
	rm -rf _build/html _build/.doctrees _build/jupyter_execute _build/progress

distclean: ## remove everything that was built or installed
	rm -rf _build "$(VENV)" *.egg-info

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile
