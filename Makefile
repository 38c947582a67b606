# `make demo` and `make test` do their own set-up. They need make and Python 3.11.5 or newer, with venv.

PYTHON ?= python3
# Number of processes that run the tests, each with one thread.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
# Each process gets neighbouring tests, so that most modules' fixtures are set up once.
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist worksteal
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
CORPORA ?= $(TONEWOOD_CORPORA)
# Seed of the melodies of `make corpus`.
DRAW ?= 0
EXAMPLE := src/tonewood/bundled/example.flac

# Compiled modules are kept, also where the environment says otherwise, as in many containers:
# the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE =

.DELETE_ON_ERROR:
.PHONY: help demo test unit long browser docs package vulnerabilities release-tools coverage mutants studio plugin format models corpus clean

help:
	@echo "make demo     enhance the bundled example; writes audio and picture to demo/"
	@echo "make test     check format, lint, types, import direction and licences; run all tests"
	@echo "make unit     run the fast tests only"
	@echo "make long     run the cases that make test leaves out"
	@echo "make docs     build the documentation to site/"
	@echo "make package  build wheel and source distribution, check them, try the wheel on every installed Python"
	@echo "make vulnerabilities  look up all pinned versions in the database of known vulnerabilities"
	@echo "make coverage run the tests and list the lines and branches that no test runs"
	@echo "make mutants  make small mistakes in the numerics and list those that no test detects (hours)"
	@echo "make studio   build the studio's page (needs Node.js 20 or newer, with npm)"
	@echo "make plugin   build the audio plug-in as CLAP, VST3 and LV2 to plugin/build/bin (needs a C++ compiler)"
	@echo "make format   format the code"
	@echo "make models   train the bundled models again (CORPORA=folder)"
	@echo "make corpus   render the paper's controlled experiment from MIT-licensed soundfonts to corpus/ (DRAW=seed)"
	@echo "make clean    remove everything that make created, the virtual environment too"

demo: $(DEMO_STAMP)
	@$(BIN)/tonewood enhance $(EXAMPLE) -m soundfont-cello -o demo --plot --overwrite

test: export OMP_NUM_THREADS = 1
test: $(STAMP) browser
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pip-licenses --output-file /dev/null >/dev/null
# mypy takes a minute of one core the first time; the tests run beside it.
	$(BIN)/mypy --no-error-summary & types=$$!; $(PYTEST) --durations 10 --durations-min 10; tests=$$?; wait $$types && exit $$tests

unit: export OMP_NUM_THREADS = 1
unit: $(STAMP)
	$(PYTEST) -m unit

# More commands, moments and durations for properties that `make test` tests with one.
long: export OMP_NUM_THREADS = 1
long: $(STAMP)
	$(PYTEST) --long -m long

# Browser tests need Chromium and axe-core. They are skipped without.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium: a minute or two"; \
	    { apt-get install -qq -y chromium || { apt-get update -qq && apt-get install -qq -y chromium; }; } >/dev/null 2>&1 && exit 0; fi; \
	  echo "Chromium is not installed and could not be installed: browser tests are SKIPPED"
	@test -f web/node_modules/axe-core/axe.min.js || { command -v npm >/dev/null && cd web && npm ci --silent --no-audit --no-fund; } || \
	  echo "axe-core is not installed and npm could not fetch it: accessibility tests are SKIPPED"

# A broken link is an error (with --quiet it would not be).
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean -d site
	@echo "open site/index.html"

package: release-tools
	@$(BIN)/python scripts/package.py

vulnerabilities: release-tools
	@$(BIN)/python scripts/vulnerabilities.py

# gcs is the only extra whose packages `dev` does not bring; its licences are checked too.
release-tools: $(STAMP)
	@$(PIP) -e '.[gcs,release]'

coverage: export OMP_NUM_THREADS = 1
coverage: release-tools browser
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n $(JOBS) --dist worksteal -W ignore::coverage.exceptions.CoverageWarning
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

# Continues where it was stopped. For a part: .venv/bin/mutmut run 'tonewood.dsp.loudness*'
mutants: export OMP_NUM_THREADS = 1
mutants: release-tools
	$(BIN)/mutmut run --max-children $(JOBS)
	$(BIN)/mutmut results

# The built page is part of the package, so that users do not need Node.js.
studio:
	@command -v npm >/dev/null || { echo "npm is not installed: install Node.js 20 or newer" >&2; exit 1; }
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build

plugin: $(DEMO_STAMP)
	@$(MAKE) -s -C plugin PYTHON=$(abspath $(BIN))/python

format: $(STAMP)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

# Train the bundled models from the development corpora.
models: export OMP_NUM_THREADS = 1
models: SHELL := bash
models: $(STAMP)
	@test -d "$(CORPORA)" || { echo "CORPORA is not a folder: name the folder of the development corpora, as in make models CORPORA=folder" >&2; exit 1; }
	for model in cello:real_cello:CC-BY-3.0 soundfont-cello:soundfont_cello_mit:MIT; do \
	  IFS=: read -r name corpus licence <<< "$$model"; folder=$(CORPORA)/$$corpus/train; \
	  $(BIN)/tonewood train --reference $$folder/good --source $$folder/cheap \
	    -o src/tonewood/bundled/$$name.tonewood --overwrite --predictor --domain "solo cello, sampled notes, dry" \
	    --licence $$licence --notice scripts/notices/$$name.txt || exit 1; \
	done

# Two cellos, same performance, no reverberation: unpaired training data, paired test data. Needs FluidSynth and soundfonts.
corpus: $(STAMP)
	@$(BIN)/python benchmarks/beds.py -o corpus --draw $(DRAW) cello_mit
	@echo "now: tonewood train --reference corpus/cello_mit/train/good --source corpus/cello_mit/train/cheap -o cello_mit.tonewood"
	@echo "then: tonewood evaluate --pairs corpus/cello_mit/test/cheap corpus/cello_mit/test/good -m cello_mit.tonewood -o report"

clean:
	rm -rf $(VENV) demo site build plugin/build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis mutants .coverage .coverage.*
	find src tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +

# What the demo needs: the base installation and the picture. Compiling all modules would take half of the time.
$(DEMO_STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) is not installed: install Python 3.11.5 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { \
	  echo "$$($(PYTHON) --version) is too old; 3.11.5 is the oldest supported: name a newer one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV): half a minute the first time"
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --no-compile -e '.[plot]'
	@touch $@

# What all other targets need: PyTorch, every extra and the developers' tools.
$(STAMP): $(DEMO_STAMP)
	@echo "Adding PyTorch and the developers' tools to $(VENV): several minutes the first time"
	@$(PIP) -e '.[dev]'
	@touch $@
