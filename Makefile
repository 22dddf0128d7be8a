# Everything that one does with this repository. `make` alone lists it.

MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
.DEFAULT_GOAL := help

# Where `make engines` installs; pkg/devstack looks there.
ENGINES_DIR ?= $(CURDIR)/.engines
export ENGINES_DIR

# The servers' versions, which tests in containers (DEVSTACK=docker) share with docker-compose.yml.
include .env
export POSTGRES_IMAGE CLICKHOUSE_IMAGE NATS_IMAGE

LINTER_VERSION := v2.15.0
LINTER := .cache/bin/golangci-lint-$(LINTER_VERSION)

# Makes internal/rest of services/api/openapi.yaml.
GENERATOR_VERSION := v2.8.2
GENERATOR := $(CURDIR)/.cache/bin/oapi-codegen-$(GENERATOR_VERSION)

SERVICES := api evaluator dispatcher
IMAGES := $(SERVICES) migrate demo
MODULES = $$(go list -f '{{.Dir}}' -m)
PACKAGES = $$(go list -f '{{.Dir}}/...' -m)
# They start no goroutine, so the race detector would find nothing, in six times the time.
PURE := ./pkg/trigger ./services/evaluator/internal/simulation

FUZZTIME ?= 10s
TEST_TIMEOUT ?= 10m

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "; print "usage: make <target>\n"} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- the local stack

.PHONY: up
up: engines ui ## run everything here: engines, services, a demo site with visitors, a receiver
	@mkdir -p bin
	@[ -x bin/local ] || echo "Building (the first time takes two or three minutes) …"
	@go build -o bin/local ./deploy/local
	@exec ./bin/local

.PHONY: replay
replay: toolchain ## let an access log pass through the running stack: LOG=path, and SPEED=60 or DURATION=2m
	@mkdir -p bin
	@go build -o bin/replay ./deploy/replay
	@exec ./bin/replay

.PHONY: engines
engines: toolchain $(ENGINES_DIR)/installed $(ENGINES_DIR)/bin/clickhouse-front ## install Postgres and the ClickHouse engine, unless they are there

ENGINES_SOURCE := pkg/devstack/engines

# The versions and their integrity hashes stand in the lock file; no package runs a script.
$(ENGINES_DIR)/installed: $(ENGINES_SOURCE)/package.json $(ENGINES_SOURCE)/package-lock.json | node
	@echo "Installing the engines in $(ENGINES_DIR) (once, about 200 MB to fetch) …"
	@mkdir -p "$(ENGINES_DIR)"
	@rm -f "$@"
	@cp $(ENGINES_SOURCE)/package.json $(ENGINES_SOURCE)/package-lock.json "$(ENGINES_DIR)/"
	@cd "$(ENGINES_DIR)" && $(NPM_CI)
	@touch "$@"

# Built without cgo: it loads the engine itself.
$(ENGINES_DIR)/bin/clickhouse-front: pkg/devstack/go.mod pkg/devstack/go.sum $(shell find pkg/devstack/cmd pkg/devstack/internal -name '*.go' -not -name '*_test.go' 2>/dev/null)
	@mkdir -p "$(ENGINES_DIR)/bin"
	@CGO_ENABLED=0 go build -trimpath -o "$@" ./pkg/devstack/cmd/clickhouse-front
	@touch "$@"

.PHONY: toolchain
toolchain: ## check that Go is there and new enough
	@command -v go >/dev/null 2>&1 || { echo "Go is missing: install version 1.26 or later from https://go.dev/dl/." >&2; exit 1; }
	@v=$$(GOWORK=off go env GOVERSION); m=$${v#go1.}; m=$${m%%[!0-9]*}; \
	if [ "$${m:-26}" -lt 26 ] && ! go list -m >/dev/null 2>&1; then \
		echo "Go $${v#go} is too old: install version 1.26 or later from https://go.dev/dl/." >&2; exit 1; \
	fi

# Nothing that is fetched runs a script; the lock files hold what it must be.
NPM_CI := NPM_CONFIG_UPDATE_NOTIFIER=false npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

.PHONY: node
node: ## check that Node.js is there and new enough
	@for tool in node npm; do command -v $$tool >/dev/null 2>&1 || { \
		echo "$$tool is missing. It fetches the engines and builds the dashboard: install Node.js 20.19 or later, with npm, from https://nodejs.org." >&2; exit 1; }; done
	@node -e 'const [major, minor] = process.versions.node.split(".").map(Number); if (major < 20 || (major === 20 && minor < 19)) { console.error("Node.js " + process.versions.node + " is too old: install version 20.19 or later from https://nodejs.org."); process.exit(1) }'

UI := services/api/ui

.PHONY: ui
ui: $(UI)/dist/app/index.html ## build the dashboard, which the api embeds

$(UI)/dist/app/index.html: $(UI)/node_modules/installed $(UI)/index.html $(UI)/vite.config.ts $(UI)/tsconfig.json services/api/openapi.yaml $(shell find $(UI)/src -type f -not -name schema.d.ts)
	@echo "Building the dashboard …"
	@cd $(UI) && npm run --silent build

$(UI)/node_modules/installed: $(UI)/package.json $(UI)/package-lock.json $(UI)/.npmrc | node
	@echo "Fetching what the dashboard is built with …"
	@cd $(UI) && $(NPM_CI)
	@touch $@

# ---------------------------------------------------------------- checks

.PHONY: test
test: test-engines ui-test ## run all tests, on real engines, with the race detector, and in a browser
	@race=-race; \
	if [ "$$(go env CGO_ENABLED)" != 1 ] || ! command -v "$$(go env CC)" >/dev/null 2>&1; then \
		if [ "$${CI:-}" = true ]; then echo "The race detector needs a C compiler: install gcc, and unset CGO_ENABLED." >&2; exit 1; fi; \
		echo "No C compiler was found, so the race detector stays off; install gcc for it."; race=; \
	fi; \
	options="$(if $(filter docker,$(DEVSTACK)),-tags=docker) -shuffle=on -timeout=$(TEST_TIMEOUT) $(TESTFLAGS)"; \
	go test $$options $(PURE) && go test $$race $$options $$(go list $(PACKAGES) | grep -v $(PURE:./%=-e /%$$))

# Tests in containers, or on servers that run already, need nothing installed.
.PHONY: test-engines
ifeq ($(filter docker env,$(DEVSTACK)),)
test-engines: engines ## install what the tests need: nothing where they run in containers
else
test-engines: toolchain
endif

# The story needs the whole stack, so it is not run where the engines are others'.
.PHONY: ui-test
ui-test: ui $(if $(filter docker env,$(DEVSTACK)),,engines browser) ## test the dashboard: what has logic, and the story in a browser on the real stack
	@cd $(UI) && npm run --silent test
ifeq ($(filter docker env,$(DEVSTACK)),)
	@mkdir -p bin && go build -o bin/local ./deploy/local
	@rm -rf $(UI)/screenshots && cd $(UI) && npm run --silent story
endif

.PHONY: bench-ui
bench-ui: ui engines browser ## measure how 10,000 deliveries scroll in the dashboard; 2 minutes
	@mkdir -p bin && go build -o bin/local ./deploy/local
	@cd $(UI) && npm run --silent bench

# A Chromium that is there is used; CHROMIUM names one elsewhere.
.PHONY: browser
browser:
	@for program in $(CHROMIUM) chromium chromium-browser google-chrome; do if command -v "$$program" >/dev/null 2>&1 && command -v curl >/dev/null 2>&1; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "Installing Chromium for the dashboard's tests (once, about 100 MB to fetch) …"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-liberation curl >/dev/null; \
	else \
		echo "The dashboard's tests need Chromium and curl: install them (on Debian: apt-get install chromium curl), or set CHROMIUM to its path." >&2; exit 1; \
	fi

.PHONY: generate
generate: toolchain $(GENERATOR) ## make the api's routes and types of services/api/openapi.yaml
	@for package in rest client; do (cd services/api/internal/$$package && $(GENERATOR) -config config.yaml -o $$package.gen.go ../../openapi.yaml) || exit 1; done

$(GENERATOR):
	@echo "Building oapi-codegen $(GENERATOR_VERSION) (once) …"
	@mkdir -p $(@D)
	@GOWORK=off GOFLAGS= GOBIN="$(@D)/new" go install github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@$(GENERATOR_VERSION)
	@mv $(@D)/new/oapi-codegen $@ && rmdir $(@D)/new

.PHONY: lint
lint: toolchain $(LINTER) $(GENERATOR) ## check format, imports, errors and modules; it changes nothing
	@unformatted=$$(gofmt -l $(MODULES)); if [ -n "$$unformatted" ]; then echo "Not formatted (make fmt): $$unformatted" >&2; exit 1; fi
	@for package in rest client; do \
		(cd services/api/internal/$$package && $(GENERATOR) -config config.yaml -o .generated ../../openapi.yaml && { cmp -s .generated $$package.gen.go; same=$$?; rm .generated; exit $$same; }) || \
			{ echo "services/api/internal/$$package is not what services/api/openapi.yaml makes (make generate)." >&2; exit 1; }; \
	done
	@go vet $(PACKAGES)
	@go vet -tags=docker ./pkg/devstack/...
	@$(LINTER) run --allow-parallel-runners $(PACKAGES)
	@for module in $(MODULES); do \
		(cd "$$module" && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff) || { echo "The module in $$module does not stand alone: see above, and run make tidy." >&2; exit 1; }; \
	done

$(LINTER):
	@echo "Building golangci-lint $(LINTER_VERSION) (once) …"
	@mkdir -p $(@D)
	@GOWORK=off GOFLAGS= GOBIN="$(CURDIR)/$(@D)/new" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINTER_VERSION)
	@mv $(@D)/new/golangci-lint $@ && rmdir $(@D)/new

.PHONY: bench-evaluator
bench-evaluator: engines ## measure slots of up to 50,000 triggers on 20 million rows; 15 minutes, 4 GB of memory
	@go test -run '^$$' -bench BenchmarkSlots -benchtime 1x -timeout 60m ./services/evaluator | grep -v -e '^goos' -e '^goarch' -e '^pkg' -e '^PASS' -e '^ok' -e '^Benchmark'

# Without what go test says itself, so that the figures are the last line.
.PHONY: bench-dispatcher
bench-dispatcher: engines ## measure the dispatcher beside bare POSTs and beside River; 3 minutes, idle machine
	@{ go test -run '^$$' -bench BenchmarkDispatcher -benchtime 1x -timeout 15m ./services/dispatcher/proof; echo "exit $$?"; } \
		| awk '/^exit [0-9]+$$/ {code = $$2; next} !/^(goos|goarch|pkg|cpu|PASS|ok|Benchmark)/ {print; fflush()} END {exit code}'

.PHONY: bench-api
bench-api: engines ## measure lists and creates with a million deliveries in the tables; 2 minutes, idle machine
	@{ go test -run '^$$' -bench BenchmarkAPI -benchtime 1x -timeout 15m ./services/api/proof; echo "exit $$?"; } \
		| awk '/^exit [0-9]+$$/ {code = $$2; next} !/^(goos|goarch|pkg|cpu|PASS|ok|Benchmark)/ {print; fflush()} END {exit code}'

.PHONY: soak
soak: engines ## kill dispatchers, broker and database under load, and count what became of each firing: DURATION=10m
	@SOAK_DURATION=$(or $(DURATION),10m) go test -run '^TestSoak$$' -count=1 -timeout 0 -v ./services/dispatcher/proof

.PHONY: fuzz
fuzz: test-engines ## fuzz every fuzz target for a while: FUZZTIME=10s
	@for package in $$(grep -rl --include='*_test.go' '^func Fuzz' $(MODULES) | xargs -n1 dirname | sort -u); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$package"/*_test.go | sort -u); do \
			echo "$$package $$target"; \
			(cd "$$package" && go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) .) || exit 1; \
		done; \
	done

.PHONY: fmt
fmt: toolchain ## format all Go files
	@gofmt -w $(MODULES)

.PHONY: tidy
tidy: toolchain ## tidy every module
	@for module in $(MODULES); do (cd "$$module" && GOWORK=off go mod tidy) || exit 1; done

# ---------------------------------------------------------------- programs and images

.PHONY: build
build: toolchain ui ## build the programs, static, into bin/
	@mkdir -p bin
	@for service in $(SERVICES); do CGO_ENABLED=0 go build -trimpath -o bin/$$service ./services/$$service/cmd/$$service || exit 1; done
	@for program in migrate local replay; do CGO_ENABLED=0 go build -trimpath -o bin/$$program ./deploy/$$program || exit 1; done
	@CGO_ENABLED=0 go build -trimpath -o bin/pwh ./services/api/cmd/pwh

.PHONY: migrate
migrate: toolchain ## apply the migrations to DATABASE_URL
	@mkdir -p bin
	@go build -o bin/migrate ./deploy/migrate
	@exec ./bin/migrate

.PHONY: images
images: ## build a container image of each program
	@for image in $(IMAGES); do \
		docker build -f deploy/Dockerfile --build-arg SERVICE=$$image --build-arg GO_IMAGE=$(GO_IMAGE) --build-arg NODE_IMAGE=$(NODE_IMAGE) -t plausible-webhooks/$$image . || exit 1; \
	done

LOCAL_DIR ?= .local
CONTAINER_SECRETS := $(LOCAL_DIR)/containers.env

.PHONY: containers
containers: $(CONTAINER_SECRETS) ## run the stack with Docker Compose, with a demo site; Ctrl-C stops it
	@exec docker compose --env-file .env --env-file $(CONTAINER_SECRETS) --profile demo up --build

# Made once: with others, what was encrypted with them could not be read any more.
$(CONTAINER_SECRETS):
	@mkdir -p $(@D)
	@umask 077 && { \
		echo "SECRETS_KEY=$$(head -c 32 /dev/urandom | base64 | tr -d '\n')"; \
		echo "PLAUSIBLE_SECRET_KEY_BASE=$$(head -c 48 /dev/urandom | base64 | tr -d '\n')"; \
	} >$@.new && mv $@.new $@

.PHONY: clean
clean: ## remove what was built and installed; the local stack's data (.local) stays
	@rm -rf bin .cache "$(ENGINES_DIR)" $(UI)/node_modules $(UI)/dist/app
