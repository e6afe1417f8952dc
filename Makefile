# `make demo` needs Python 3.11 or newer and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin

.PHONY: demo test test-fast test-gpu test-gpu-delegate test-arm test-cpp test-web test-mediapipe fuzz lint bench clean

demo: .venv/demo
	$(BIN)/python examples/demo.py

# A process for each of WORKERS cores, each with its own files of tests.
WORKERS ?= 2
# Memory that was freed is kept for the next model; to get it anew from Linux takes a twentieth of the time.
MALLOC = MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TOP_PAD_=67108864
# Compiled modules are kept, even where PYTHONDONTWRITEBYTECODE is set: hundreds of processes are started.
PYTEST = $(MALLOC) PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: .venv/test
	$(PYTEST)

# While you work: what takes seconds is left out.
test-fast: .venv/test
	$(PYTEST) -m "not long and not slow and not network and not gpu and not arm and not cpp and not web and not mediapipe and not gpu_delegate"

# Needs a GPU.
test-gpu: .venv/test
	$(BIN)/python -m pytest -m gpu

# Every recipe on LiteRT's GPU delegate. Needs a GPU's Vulkan driver, or SwiftShader: apt-get install chromium libvulkan1
test-gpu-delegate: .venv/test
	$(BIN)/python -m pytest tests/edge/test_gpu_delegate.py -m "gpu_delegate or not gpu_delegate"

# Every recipe on both runtimes' ARM builds, emulated, in about ten minutes. Needs Debian 12 and its qemu-user-static.
test-arm: .venv/test .arm
	$(BIN)/python -m pytest tests/arm -m arm

.arm: tests/arm/boards.py | .venv/test
	$(BIN)/python -m tests.arm.boards

# The C++ client of examples/cpp, built against Debian's TensorFlow Lite. Needs g++, cmake and Debian's apt.
test-cpp: .venv/test .cpp
	$(BIN)/python -m pytest tests/cpp -m cpp

.cpp: tests/cpp/tflite.py tests/debian.py | .venv/test
	$(BIN)/python -m tests.cpp.tflite

# The page of `segformer serve`, in Chromium, with LiteRT.js. Needs: apt-get install chromium nodejs npm (Node 20 or newer)
test-web: .venv/test web/node_modules
	$(BIN)/python -m pytest tests/web -m web

web/node_modules: web/package-lock.json
	cd web && npm ci
	touch $@

# MediaPipe's ImageSegmenter on our files, in an environment of its own, as it wants another OpenCV.
test-mediapipe: .venv/test .mediapipe/installed
	$(BIN)/python -m pytest tests/mediapipe -m mediapipe

.PHONY: mediapipe
mediapipe: .mediapipe/installed

.mediapipe/installed: tests/mediapipe/requirements.txt | .venv/bin/python
	$(BIN)/python -m venv .mediapipe
	.mediapipe/bin/pip install --quiet --requirement $<
	touch $@

# Random input for ten minutes, or MINUTES.
MINUTES ?= 10
fuzz: .venv/test
	end=$$(($$(date +%s) + 60 * $(MINUTES))); while [ $$(date +%s) -lt $$end ]; do \
		$(BIN)/python -m pytest tests/test_fuzz.py --hypothesis-profile=fuzz || exit 1; done

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The manual, in build/docs/; a warning is an error.
.PHONY: docs
docs: .venv/docs
	$(BIN)/mkdocs build --strict

# MODELS: the files to time, such as runs/demo/*.tflite
MODELS ?= $(wildcard runs/demo/*.tflite)
bench: .venv/demo
	$(BIN)/segformer benchmark $(MODELS)

# What `segformer plan` times.
.PHONY: plan-graphs
plan-graphs: .venv/demo
	$(BIN)/python -m benchmarks.plan_graphs

clean:
	rm -rf .venv .arm .cpp .mediapipe web/node_modules build *.egg-info

# A stamp file per set of extras; all share one environment.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[train,convert]'
	touch $@

.venv/docs: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

.venv/test: .venv/demo
	$(BIN)/pip install --quiet --editable '.[test]'
	# it asks for opencv-python, which would overwrite opencv-python-headless
	$(BIN)/pip install --quiet --no-deps imagecorruptions-imaug==1.1.5
	touch $@

.venv/dev: .venv/test
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
