# `make demo` and `make test` do their own set-up. They need make and Python 3.11.5 or newer, with venv.

PYTHON ?= python3
# Processes that run the tests side by side, each with one thread.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
CORPORA ?= $(TONEWOOD_CORPORA)
# Another number, other melodies.
DRAW ?= 0
# HASHES=no installs by constraints.txt alone, from an index whose files are not those of requirements/.
HASHES ?= yes
EXAMPLE := src/tonewood/bundled/example.flac

.DELETE_ON_ERROR:
.PHONY: help demo test browser docs package vulnerabilities lock coverage mutants studio format models corpus clean

help:
	@echo "make demo    enhance the bundled example; the sound and the picture go to demo/"
	@echo "make test    formatting, lint, types, import direction, tests"
	@echo "make docs    build the documentation as a site, to site/"
	@echo "make package build wheel and source distribution, check both, try the wheel on every Python here"
	@echo "make vulnerabilities  look all pinned versions up in the database of known vulnerabilities"
	@echo "make lock    write requirements/ anew: the versions of constraints.txt with the hashes of their files"
	@echo "make coverage  run the tests and tell which branches of the package none takes"
	@echo "make mutants put small mistakes into the numerics and tell which no test notices (hours)"
	@echo "make studio  build the studio's page anew (needs node 20 or newer, with npm)"
	@echo "make format  put the code into its canonical format"
	@echo "make models  train the bundled models again (CORPORA=folder)"
	@echo "make corpus  render the paper's controlled experiment from MIT soundfonts, to corpus/ (DRAW=seed)"
	@echo "make clean   remove all that make made, the virtual environment too"

demo: $(STAMP)
	@$(BIN)/tonewood enhance $(EXAMPLE) -m soundfont-cello -o demo --plot --overwrite

test: export OMP_NUM_THREADS = 1
test: $(STAMP) browser
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q -n $(JOBS) --durations 10 --durations-min 10

# What the tests of the studio's page need besides: a Chromium, and axe-core. They are skipped without.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium: a minute or two"; \
	    { apt-get install -qq -y chromium || { apt-get update -qq && apt-get install -qq -y chromium; }; } >/dev/null 2>&1 && exit 0; fi; \
	  echo "Chromium is not here and could not be installed: the tests in a browser are SKIPPED"
	@test -f web/node_modules/axe-core/axe.min.js || { command -v npm >/dev/null && cd web && npm ci --silent --no-audit --no-fund; } || \
	  echo "axe-core is not here and npm could not fetch it: the tests of accessibility are SKIPPED"

# A link that leads nowhere is an error, here and in the tests; under --quiet it would not be.
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean -d site
	@echo "open site/index.html"

package: $(STAMP)
	@$(PIP) --no-deps --require-hashes -r requirements/release.txt
	@$(BIN)/python scripts/package.py

# Whatever is pinned, by its version, against the known vulnerabilities.
vulnerabilities: $(STAMP)
	@$(PIP) --no-deps --require-hashes -r requirements/release.txt
	@$(BIN)/python scripts/vulnerabilities.py

# Both take the whole suite, and longer than it.
coverage: export OMP_NUM_THREADS = 1
coverage: $(STAMP) browser
	@$(PIP) --no-deps --require-hashes -r requirements/release.txt
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n $(JOBS) -W ignore::coverage.exceptions.CoverageWarning
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

mutants: export OMP_NUM_THREADS = 1
mutants: $(STAMP)
	@$(PIP) --no-deps --require-hashes -r requirements/release.txt
	$(BIN)/python scripts/mutants.py map tests src/tonewood -o mutants
	$(BIN)/python scripts/mutants.py run -o mutants --jobs $(JOBS)

lock: $(STAMP)
	@$(PIP) -c constraints.txt uv
	@$(BIN)/python scripts/lock.py

# The built page is part of the package, so that nobody needs node to use it.
studio:
	@command -v npm >/dev/null || { echo "npm is not installed: install Node.js 20 or newer" >&2; exit 1; }
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build

format: $(STAMP)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

# The bundled models, from the development corpora.
models: export OMP_NUM_THREADS = 1
models: SHELL := bash
models: $(STAMP)
	@test -d "$(CORPORA)" || { echo "name the folder of the development corpora: make models CORPORA=folder" >&2; exit 1; }
	for model in cello:real_cello:CC-BY-3.0 soundfont-cello:soundfont_cello_mit:MIT; do \
	  IFS=: read -r name corpus licence <<< "$$model"; folder=$(CORPORA)/$$corpus/train; \
	  $(BIN)/tonewood train --reference $$folder/good --source $$folder/cheap \
	    -o src/tonewood/bundled/$$name.tonewood --overwrite --predictor --domain "solo cello, sampled notes, dry" \
	    --licence $$licence --notice scripts/notices/$$name.txt || exit 1; \
	done

# Two cellos, one performer, no room: train unpaired, test paired. It needs FluidSynth and soundfonts.
corpus: $(STAMP)
	@$(BIN)/python benchmarks/beds.py -o corpus --draw $(DRAW) cello_mit
	@echo "now: tonewood train --reference corpus/cello_mit/train/good --source corpus/cello_mit/train/cheap -o cello_mit.tonewood"
	@echo "then: tonewood evaluate --pairs corpus/cello_mit/test/cheap corpus/cello_mit/test/good -m cello_mit.tonewood -o report"

clean:
	rm -rf $(VENV) demo site build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis mutants .coverage .coverage.*
	find src tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt requirements/dev.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) is not installed: install Python 3.11.5 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { \
	  echo "$$($(PYTHON) --version) is too old, the tools used here need 3.11.5: name a newer one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV): several minutes the first time"
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
ifeq ($(HASHES),no)
	@$(PIP) -c constraints.txt -e '.[dev]'
else
	@$(PIP) --no-deps --require-hashes -r requirements/dev.txt || { \
	  echo "an index with files of its own cannot have the hashes of requirements/dev.txt; to do without: make HASHES=no" >&2; exit 1; }
	@# Its build for the CPU is another file than the index's own: the version is held, the hash cannot be.
	@$(PIP) -c constraints.txt torch
	@$(PIP) --no-deps --no-build-isolation -e .
endif
	@touch $@
