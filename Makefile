# Everything a person or CI does with this repository. It needs Go, make, git and gcc; the rest is fetched, pinned.
# `make help` lists the targets. Recipes of more than a few lines are scripts in tools/make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

MODULES  := $(shell sed -n 's|^\t\./||p' go.work)
PATTERNS := $(MODULES:%=./%/...)
COMMANDS := $(patsubst %/,%,$(dir $(wildcard services/*/cmd/shoal*/main.go cli/cmd/shoal*/main.go allinone/cmd/shoal*/main.go test/harness/cmd/shoal*/main.go)))

# The version is a tag, or, between tags, the time and name of the commit. DATE is the commit's: nothing that is built
# depends on when.
VERSION ?= $(shell tools/make/version)
COMMIT  ?= $(shell tools/make/version commit)
DATE    ?= $(shell tools/make/version date)
STAMP   := github.com/shoalproject/shoal/internal/run
LDFLAGS := -X $(STAMP).version=$(VERSION) -X $(STAMP).commit=$(COMMIT) -X $(STAMP).date=$(DATE)

# One set of compiler flags for all that is built, linted and vetted, so that the build cache serves them all.
# grpcnotrace leaves out golang.org/x/net/trace, with which the linker could not drop unused methods: 3 MB a program.
STATIC := CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -trimpath -tags=grpcnotrace"
TOOLS  := bin/tools/.built
COMPOSE := .cache/docker-compose
CONTAINERD2 := .cache/containerd2/containerd
each    = @for m in $(MODULES); do (cd $$m && $(1)) || { echo "in $$m: $(1)" >&2; bad=1; }; done; [ -z "$${bad:-}" ]

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

##@ build

.PHONY: build packages images gen docs deps demo demo-down clean
build: ## all binaries, static, into bin/
	@mkdir -p bin
	$(STATIC) go build -ldflags '$(LDFLAGS)' -o bin/ $(COMMANDS:%=./%)

packages: ## .deb, .rpm and tarballs into dist/; ARCH=amd64 FORMAT=deb builds some
	@GOWORK=off go -C tools/packages run . -root $(CURDIR) -out $(CURDIR)/dist -version $(VERSION) -commit "$(COMMIT)" \
		-date "$(DATE)" $(ARCH:%=-arch %) $(FORMAT:%=-format %)

images: ## container images into dist/images; ARCH=amd64 packs one architecture
	@tools/make/images $(VERSION) "$(COMMIT)" "$(DATE)" '$(LDFLAGS)' $(ARCH)

gen: fix-generated ## Go and OpenAPI from the protos

docs: fix-docs ## the reference of the config files from the code

deps: ## install the Debian packages that the laboratory needs, when missing
	@tools/make/deps

demo: deps build ## a cluster of three hosts with a service on it, left running
	./deploy/demo/up

demo-down: ## remove the demo's cluster
	./deploy/demo/down

clean: ## remove what was built
	rm -rf bin dist .cache

##@ test

.PHONY: test bench mutants chaos vuln
test: check deps build ## everything CI runs: checks, unit tests, simulation, laboratory
	@tools/make/test unit sim lab

.PHONY: test-deploy test-systemd test-compose test-vm test-containerd2 deps-deploy images-here
deps-deploy:
	@tools/make/deps deploy

test-deploy: deps-deploy build packages images-here $(COMPOSE) ## all ways to deploy: test-systemd, test-compose, the pages of docs/operations
	@tools/make/test deploy

test-systemd: deps-deploy build ## the packages on three machines with systemd and apt
	@tools/make/test systemd

test-compose: deps-deploy build images-here $(COMPOSE) ## the compose files on a real dockerd, by docker compose and docker-compose
	@tools/make/test compose

test-vm: build ## tests on Debian's kernel with cgroup v2 and systemd, in a virtual machine; ACCEL=tcg without /dev/kvm
	@tools/make/deps vm
	@bin/shoal-lab images >/dev/null
	@tools/make/test vm

test-containerd2: deps build $(CONTAINERD2) ## containers on containerd 2 in place of the machine's, and the way from one to the other
	@tools/make/test containerd2

images-here:
	@$(MAKE) images ARCH=$$(go env GOARCH)

# Rebuilt only when its pinned version changes.
$(COMPOSE): tools/compose/go.mod
	v=$$(GOWORK=off go -C tools/compose list -m -f '{{.Version}}' github.com/docker/compose/v2) && CGO_ENABLED=0 GOWORK=off \
	go -C tools/compose build -trimpath -ldflags "-X github.com/docker/compose/v2/internal.Version=$$v" -o $(CURDIR)/$@ \
		github.com/docker/compose/v2/cmd

$(CONTAINERD2): tools/containerd/go.mod
	v=$$(GOWORK=off go -C tools/containerd list -m -f '{{.Version}}' github.com/containerd/containerd/v2) && CGO_ENABLED=0 GOWORK=off \
	go -C tools/containerd build -trimpath -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$$v" \
		-o $(CURDIR)/$(@D)/ tool

bench: deps build ## the figures; PEERS=1 also takes Docker Swarm's
	PEERS=$(PEERS) go -C test run ./bench -only '^(scale|create|container|host|dispatcher|leader|idle)$$'

.PHONY: bench-node
bench-node: deps build ## the figures of the node: 50 more replicas, 100 containers, 5,000 machines, logs; charts into docs/benchmarks/node
	go -C test run ./bench -only '^(one|hundred|hollow|logs)$$' -figures $(CURDIR)/docs/benchmarks/node

.PHONY: bench-net
bench-net: build ## the network's figures: the mesh, virtual addresses, HAProxy and nginx beside the meshproxy; charts into docs/benchmarks/network
	@tools/make/deps bench-net
	@go -C test run ./bench/net -figures $(CURDIR)/docs/benchmarks/network
	@go -C test run ./bench/net -only appear -workers 29 -figures $(CURDIR)/docs/benchmarks/network
	@cd services/meshproxy && go test -run '^$$' -bench EndpointChange ./internal/tables

.PHONY: bench-scheduler
bench-scheduler: ## the decision's figures beside SwarmKit's, a day of 10,000 nodes, charts into docs/benchmarks/scheduler
	@tools/make/bench-scheduler
	@cd services/scheduler && GOMAXPROCS=1 go test -run '^$$' -bench 'FillAndApply/^10000nodes' -benchtime 5x ./internal/decide
	@cd services/scheduler && go test -run '^$$' -bench OneFailure -benchtime 500x ./internal/decide
	@cd services/scheduler && go test -v -timeout 1h -run 'TestDay|TestGrowth' ./internal/decide \
		-day 24h -nodes 10000 -figures $(CURDIR)/docs/benchmarks/scheduler

mutants: ## remove one guarantee at a time, expect its test to turn red; RUN=regexp picks some
	@go -C test run ./mutants -run '$(RUN)'

chaos: deps build ## thousands of simulated seeds, then hours of faults in the laboratory
	@tools/make/test chaos

vuln: $(TOOLS) ## known vulnerabilities, where the database can be reached; gates nothing
	@tools/make/vuln $(PATTERNS)

##@ check: each check-x has a fix-x

.PHONY: check fix
CHECKS := format arch generated docs buf tidy vet build lint
check: ## all checks; tells every red one, not the first alone
	@$(MAKE) --keep-going $(CHECKS:%=check-%)
fix: $(CHECKS:%=fix-%) ## all fixes that a machine can make

.PHONY: $(CHECKS:%=check-%) $(CHECKS:%=fix-%)
check-format: $(TOOLS) ## gofmt, import order
	@bin/tools/golangci-lint fmt --diff $(MODULES)
fix-format: $(TOOLS)
	bin/tools/golangci-lint fmt $(MODULES)

check-lint: $(TOOLS) ## .golangci.yml
	@$(STATIC) bin/tools/golangci-lint run --allow-parallel-runners $(PATTERNS)
fix-lint: $(TOOLS)
	$(STATIC) bin/tools/golangci-lint run --allow-parallel-runners --fix $(PATTERNS)

check-buf: $(TOOLS) ## our protos: lint, format, still readable by the last release
	@tools/make/generated googleapis
	@bin/tools/buf lint --path proto/shoal
	@bin/tools/buf format --diff --exit-code --path proto/shoal
	@tools/make/breaking
fix-buf: $(TOOLS)
	@tools/make/generated googleapis
	bin/tools/buf format --write --path proto/shoal

check-generated: $(TOOLS) ## generated code is what the protos say
	@tools/make/generated check
fix-generated: $(TOOLS)
	@tools/make/generated fix

check-docs: ## docs/reference/config is what the code says
	@$(STATIC) go run ./test/reference -check
fix-docs:
	$(STATIC) go run ./test/reference

check-tidy: ## every go.mod, without the workspace
	$(call each,GOWORK=off go mod tidy -diff)
	@for m in tools tools/packages tools/images tools/compose tools/containerd tools/swarmkit; do GOWORK=off go -C $$m mod tidy -diff; done
fix-tidy: # Step 1: one go line for all, the highest that any has. Step 2: each names what it imports. Step 3: all agree on
	go work use # versions, which may leave some with lines that they no longer need, hence step 4: tidy again.
	$(call each,go mod edit -go=$$(sed -n 's/^go //p' $(CURDIR)/go.work) && GOWORK=off go mod tidy)
	go work sync
	$(call each,GOWORK=off go mod tidy)
	@for m in tools tools/packages tools/images tools/compose tools/containerd tools/swarmkit; do GOWORK=off go -C $$m mod tidy; done

check-vet: ## go vet
	@$(STATIC) go vet $(PATTERNS)
fix-vet:
	$(STATIC) go vet -fix $(PATTERNS)

check-build: ## every module by itself, for amd64 and arm64
	$(call each,$(STATIC) GOWORK=off GOARCH=amd64 go build ./...)
	$(call each,$(STATIC) GOWORK=off GOARCH=arm64 go build ./...)
fix-build:
	@echo 'build: by hand'

check-arch: ## the rules of the house, test/arch
	@go -C test test ./arch
fix-arch:
	@echo 'arch: by hand; every line of `make check-arch` says what to do'

# Rebuilt only when a pinned version changes.
$(TOOLS): tools/go.mod
	GOWORK=off GOBIN=$(CURDIR)/bin/tools go -C tools install tool
	@touch $@
