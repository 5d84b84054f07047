# `make help` says what there is. Every target works from a fresh clone, asks nothing and downloads nothing but Go modules and
# Debian packages.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: build demo bench test packages style unit purego arm64 fuzz integration clean help

INTEGRATION := cmd/nbdcrypt/integration
FUZZTIME ?= 2000x
FUZZTIME_NBD ?= 250000x

help: ## this list
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

build: ## the program, as bin/nbdcrypt
	CGO_ENABLED=0 go build -trimpath -o bin/nbdcrypt ./cmd/nbdcrypt

demo: build ## the main job from nothing to nothing, in a temporary directory
	bin/nbdcrypt demo

# Options of bench io, to make it shorter: BENCH="--rounds 2 --only read-1m". What can't be installed is named and left out.
BENCH ?=

bench: build ## the cipher, the server beside others, many disks: half an hour, or see BENCH in the Makefile
	@$(INTEGRATION)/packages fio libnbd-bin nbdkit qemu-utils || true
	bin/nbdcrypt bench cipher --rounds 31
	bin/nbdcrypt bench io $(BENCH)
	bin/nbdcrypt bench scale

test: packages style unit purego arm64 fuzz integration ## everything; as root, on Debian, it installs the packages it needs

packages: ## the Debian packages that the tests need: installed as root, named otherwise
	@$(INTEGRATION)/packages

style: ## gofmt and go vet, which also holds assembly against its declarations
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go vet ./...
	go vet -tags integration ./...
	go vet -tags keytest ./...
	go vet -tags purego ./...
	GOARCH=arm64 go vet ./...

unit: ## the tests that need nothing but Go, then the same under the race detector (which needs gcc)
	go test ./...
	CGO_ENABLED=1 go test -race -short ./...

purego: ## the tests of what the tag purego builds without assembly, and of disks on top of it
	go test -tags purego -short ./xts ./pkg/aes256 ./pkg/bench ./pkg/volume/...

# The Cortex-A53 has the instructions for AES and next to nothing that came later, so that none of that slips in.
arm64: ## the tests of the assembly for arm64, emulated; on such a machine they are in unit
	[ "$$(go env GOHOSTARCH)" = arm64 ] || GOARCH=arm64 go test -short -exec 'qemu-aarch64 -cpu cortex-a53' ./xts ./pkg/aes256 ./pkg/bench
	[ "$$(go env GOHOSTARCH)" = arm64 ] || GOARCH=arm64 go test -short -run '^TestDo' -exec 'qemu-aarch64 -cpu cortex-a53' ./pkg/secret

# By number of inputs: a time that ends on an input being shrunk fails go test. The targets of the wire get about 30 seconds each.
fuzz: ## each fuzz target for a moment (FUZZTIME=2000x, FUZZTIME_NBD=250000x)
	@packages=$$(go list ./...); mkdir -p bin; \
	for package in $$packages; do \
		targets=$$(go test -list '^Fuzz' $$package | sed -n '/^Fuzz/p'); \
		for target in $$targets; do \
			echo "fuzz $$package $$target"; \
			inputs=$(FUZZTIME); case $$package in */nbd) inputs=$(FUZZTIME_NBD);; esac; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $$inputs -fuzzminimizetime 100x $$package >bin/fuzz.log || { cat bin/fuzz.log; exit 1; }; \
		done; \
	done

# A test that was skipped shows nothing, so it counts as failed.
integration: ## the real binary against real clients; needs root
	@mkdir -p bin
	go test -tags integration -count=1 -v -timeout 10m -run 'Tool' ./nbd | tee bin/integration.log | grep -vE '^=== '
	go test -tags integration -count=1 -v -timeout 10m ./pkg/demo | tee -a bin/integration.log | grep -vE '^=== '
	go test -tags integration -count=1 -v -timeout 20m ./$(INTEGRATION) | tee -a bin/integration.log | grep -vE '^=== '
	@if grep -E '^ *--- SKIP' bin/integration.log; then echo "the tests above were skipped"; exit 1; fi

clean: ## what was built
	rm -rf bin
