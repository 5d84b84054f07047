# `make help` says what there is. Every target works from a fresh clone, asks nothing and downloads nothing but Go modules and
# Debian packages.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: build pkcs11 demo bench test fresh packages style unit purego arm64 fuzz integration test-vm-short test-vm rules clean help

INTEGRATION := cmd/nbdcrypt/integration
VMTEST := cmd/nbdcrypt/vmtest
# Reads go test -json, prints what go test would without, and keeps the list of tests that ran, which `make rules` reads.
TESTLOG := go run ./cmd/nbdcrypt/testlog
LISTS := bin/tests
FUZZTIME ?= 2000x
FUZZTIME_NBD ?= 250000x
# Tests wait for syncs, processes and each other as long as they compute: more of them at once than there are processors.
ATONCE := $(shell echo $$((2 * $$(nproc))))

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

build: ## the program, as bin/nbdcrypt
	CGO_ENABLED=0 go build -trimpath -o bin/nbdcrypt ./cmd/nbdcrypt

pkcs11: ## the helper for keys on PKCS#11 tokens, as bin/nbdcrypt-pkcs11; needs a C compiler
	CGO_ENABLED=1 go build -trimpath -tags pkcs11 -o bin/nbdcrypt-pkcs11 ./cmd/nbdcrypt-pkcs11

demo: build ## the main job from nothing to nothing, in a temporary directory
	bin/nbdcrypt demo

# Options of bench io, to make it shorter: BENCH="--rounds 2 --only read-1m". What can't be installed is named and left out.
BENCH ?=

bench: build ## the cipher, the server beside others, layers, many disks: half an hour, or see BENCH in the Makefile
	@$(INTEGRATION)/packages fio libnbd-bin nbdkit qemu-utils || true
	bin/nbdcrypt bench cipher --rounds 31
	bin/nbdcrypt bench io $(BENCH)
	bin/nbdcrypt bench layers
	bin/nbdcrypt bench scale

test: fresh packages style unit purego arm64 fuzz integration test-vm-short rules ## everything; as root, on Debian, it installs the packages it needs

# What an older run has shown does not count.
fresh:
	@rm -rf $(LISTS)

packages: ## the Debian packages that the tests need: installed as root, named otherwise
	@$(INTEGRATION)/packages $(INTEGRATION)/packages.txt $(VMTEST)/packages.txt

style: ## gofmt and go vet, which also holds assembly against its declarations
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go vet ./...
	go vet -tags integration,keytest,clocktest,vm ./...
	go vet -tags vm,long ./$(VMTEST)/...
	go vet -tags rules ./cmd/nbdcrypt/testlog
	CGO_ENABLED=1 go vet -tags pkcs11 ./cmd/nbdcrypt-pkcs11
	go vet -tags purego ./xts ./pkg/aes256 ./pkg/bench ./pkg/secret
	GOARCH=arm64 go vet ./...

# The second time files lie in memory, where there is room for them and programs may run from there: syncs are what takes most of the time, and
# the first time was with the disk's.
# What runs side by side goes through the race detector too: not ciphers, which share nothing, not the scripts over the whole program, whose
# daemon is that of pkg/daemon, and not the long tests that do one thing after the other.
ONEBYONE := PowerCuts|PowerGoes|AnyHistory|DeepStacks|EveryRoleAt|EveryVerbLeaves|AtMost250Versions|DamagedRecordTakes|DamagedLogIs|MetricsRights|LostAnswers|FlippedBitInCatalog|TruncatedCatalog
unit: ## the tests that need nothing but Go, then those of what runs side by side under the race detector (which needs gcc)
	go test -json -p $(ATONCE) ./... | $(TESTLOG) $(LISTS)/unit.json
	@memory=$${TMPDIR:-/tmp}; probe=$$(mktemp -p /dev/shm 2>/dev/null || true); \
	if [ -n "$$probe" ] && cp /bin/true "$$probe" && chmod +x "$$probe" && "$$probe" && [ "$$(df -k --output=avail /dev/shm | tail -n 1)" -gt 4000000 ]; then memory=/dev/shm; fi; \
	rm -f "$$probe"; echo "go test -race -short (files in $$memory)"; \
	GOTMPDIR=$${GOTMPDIR:-$${TMPDIR:-/tmp}} TMPDIR=$$memory CGO_ENABLED=1 go test -json -p $(ATONCE) -race -short -skip '$(ONEBYONE)' $$(go list ./... | grep -vE '^nbdcrypt/(xts|cmd/|pkg/(aes256|bench|demo|kit)($$|/))') | \
		$(TESTLOG) $(LISTS)/unit-race.json

purego: ## the tests of what the tag purego builds without assembly, and of disks on top of it
	go test -tags purego -short ./xts ./pkg/aes256 ./pkg/bench ./pkg/volume/...

# The Cortex-A53 has the instructions for AES and next to nothing that came later, so that none of that slips in.
arm64: ## the tests of the assembly for arm64, emulated; on such a machine they are in unit
	[ "$$(go env GOHOSTARCH)" = arm64 ] || GOARCH=arm64 go test -short -exec 'qemu-aarch64 -cpu cortex-a53' ./xts ./pkg/aes256 ./pkg/bench
	[ "$$(go env GOHOSTARCH)" = arm64 ] || GOARCH=arm64 go test -short -run '^TestDo' -exec 'qemu-aarch64 -cpu cortex-a53' ./pkg/secret

# By number of inputs: a time that ends on an input being shrunk fails go test. The targets of the wire get about 30 seconds each. A package's
# targets share a binary, which go test would link again for each.
fuzz: ## each fuzz target for a moment (FUZZTIME=2000x, FUZZTIME_NBD=250000x)
	@mkdir -p bin/fuzz; cache=$$(go env GOCACHE)/fuzz/nbdcrypt; \
	packages=$$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); \
	printf '%s\n' $$packages | xargs -P "$$(nproc)" -I PACKAGE sh -c 'go test -c -fuzz . -o bin/fuzz/$$(echo PACKAGE | tr / _).test PACKAGE'; \
	for package in $$packages; do \
		binary=$$PWD/bin/fuzz/$$(echo $$package | tr / _).test; \
		for target in $$(cd $$package && $$binary -test.list '^Fuzz'); do \
			echo "fuzz $$package $$target"; \
			inputs=$(FUZZTIME); case $$package in */nbd) inputs=$(FUZZTIME_NBD);; esac; \
			(cd $$package && $$binary -test.run '^$$' -test.fuzz "^$$target$$" -test.fuzztime $$inputs -test.fuzzminimizetime 100x \
				-test.fuzzcachedir $$cache/$$package) >bin/fuzz.log 2>&1 || { cat bin/fuzz.log; exit 1; }; \
		done; \
	done

# A test that was skipped shows nothing, so it counts as failed.
integration: ## the real binary against real clients; needs root
	go test -json -tags integration -count=1 -timeout 10m -run 'Tool' ./nbd | $(TESTLOG) -v -noskip $(LISTS)/integration-nbd.json
	go test -json -tags integration -count=1 -timeout 10m ./pkg/demo | $(TESTLOG) -v -noskip $(LISTS)/integration-demo.json
	go test -json -tags integration -count=1 -timeout 20m -parallel $(ATONCE) ./$(INTEGRATION) | $(TESTLOG) -v -noskip $(LISTS)/integration.json

# The virtual machines run on QEMU without KVM: each takes one processor, so that as many tests run at once as there are.
test-vm-short: ## a real kernel, power cuts, kills and faults, in virtual machines: a few of each (part of test)
	@$(INTEGRATION)/packages $(VMTEST)/packages.txt
	go test -json -tags vm -count=1 -timeout 15m -parallel $$(nproc) ./$(VMTEST) | $(TESTLOG) -v -noskip $(LISTS)/test-vm-short.json

test-vm: ## the same with a hundred power cuts and kills, there and on this machine, and what takes minutes: half an hour
	@$(INTEGRATION)/packages $(VMTEST)/packages.txt $(INTEGRATION)/packages.txt
	go test -json -tags integration -count=1 -timeout 30m -run Killed ./$(INTEGRATION) -kills 100 | $(TESTLOG) -v -noskip $(LISTS)/test-vm-killed.json
	go test -json -tags vm,long -count=1 -timeout 90m -parallel $$(nproc) ./$(VMTEST) -cuts 100 -kills 100 | $(TESTLOG) -v -noskip $(LISTS)/test-vm.json

rules: ## is each rule of docs/rules.md shown by a test that ran and passed? After unit, integration and test-vm-short (part of test)
	go test -tags rules -count=1 -run '^TestEveryRuleIsShown$$' ./cmd/nbdcrypt/testlog

clean: ## what was built
	rm -rf bin
