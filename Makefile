PYTHON := $(shell for p in python3.11 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: run test check bench gpu-check rag-check soak links proto clean

run: .venv/.run            ## install and run the demo on real text
	@$(BIN)/gingham demo

test: .venv/.dev           ## install and run the tests
	@$(BIN)/python -m pytest

soak: .venv/.dev           ## long crash and model runs, and GINGHAM_SOAK_MINUTES (30) of load on a server
	@$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0

check: .venv/.dev links    ## style, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@PYTHONPATH=.links $(BIN)/lint-imports

bench: .venv/.bench        ## figures against peers; see bench/README.md
	@$(BIN)/python bench/run.py

gpu-check: .venv/.dev      ## a CUDA device against the CPU: the same rows and bits, then speed
	@$(PIP) -e ".[gpu]"
	@$(BIN)/python bench/gpu.py --json bench/results/gpu.json

# Each framework pins packages of its own, so they get an environment without our constraints.
rag-check: | $(BIN)/python ## the backends against the test kits of their frameworks
	@test -d .venv/rag || $(BIN)/python -m venv .venv/rag
	@.venv/rag/bin/python -m pip install -q --disable-pip-version-check -e ".[rag-check]"
	@.venv/rag/bin/python -m pytest tests/rag -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Gingham needs Python 3.11 or newer as python3.11 or python3; none was found." >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Gingham into .venv ..."
	@$(PIP) -e . && touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Gingham and its test tools into .venv ..."
	@$(PIP) -e ".[dev]" && touch $@

.venv/.bench: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) -e ".[dev,bench]" && touch $@

links:
	@rm -rf .links && mkdir -p .links/gingham
	@for f in engine/*; do ln -s ../../$$f .links/gingham/; done
	@for d in index codecs server clients; do test ! -d $$d || ln -s ../../$$d .links/gingham/$$d; done

# Stubs run on the protobuf of their generator and the next major one, never an older one: so the generator is an old
# one, in an environment of its own. The path gingham/server/proto makes their imports absolute.
proto: | $(BIN)/python     ## generate the stubs of the gRPC interface
	@test -d .venv/proto || $(BIN)/python -m venv .venv/proto
	@.venv/proto/bin/python -m pip install -q --disable-pip-version-check grpcio-tools==1.72.1 setuptools
	@rm -rf build/proto && mkdir -p build/proto
	@.venv/proto/bin/python -m grpc_tools.protoc -Igingham/server/proto=server/proto/gingham/v1 --python_out=build/proto \
	  --grpc_python_out=build/proto --pyi_out=build/proto gingham/server/proto/gingham.proto
	@cp build/proto/gingham/server/proto/gingham_pb2* server/proto/
	@rm -rf build/proto

clean:
	@rm -rf .venv .links build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
