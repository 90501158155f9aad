# Cubicle: build, run and test. `make run` shows the desktop, `make test`
# passes the tests; both install what they need on Debian 12.

SHELL := /bin/bash

# A Go that is new enough comes first in PATH, for the tests' own use too.
# Where setup has just installed it, only a make started afterwards finds it:
# what needs Go is therefore done by a second make.
go_folder := $(patsubst %/,%,$(dir $(shell .ci/setup find-go 2>/dev/null)))
ifneq ($(go_folder),)
export PATH := $(go_folder):$(PATH)
endif
again := @$(MAKE) --no-print-directory

# One flag set for everything: another one would compile Fyne once more.
# x11: dom0's desktop is X11, so GLFW needs no Wayland.
export GOFLAGS := -buildvcs=false -tags=x11,no_emoji,migrated_fynedo
export GOTOOLCHAIN := auto

bin := $(CURDIR)/bin

# Programs with cgo (Fyne), programs without, and names that a program goes
# by as well.
gui_programs := qube-manager qubes-tray qubes-policy-agent
programs := cubicle qubesd qrexecd qubes-guid qvm qrexec qubesdb
qvm_names := qrexec-policy-graph qubes-policy qubes-policy-editor qubes-policy-lint qubes-prefs qubes-vm-settings qvm-block \
	qvm-check qvm-clone qvm-copy-to-vm qvm-create qvm-device qvm-features qvm-firewall qvm-kill qvm-ls qvm-move-to-vm qvm-notes \
	qvm-pause qvm-pci qvm-policy qvm-pool qvm-prefs qvm-remove qvm-restart qvm-run qvm-service qvm-shutdown qvm-start qvm-suspend \
	qvm-tags qvm-template qvm-unpause qvm-usb qvm-volume
# Of these a qube that may use the Admin API has no use for:
dom0_names := qrexec-policy-graph qubes-vm-settings qvm-copy-to-vm qvm-move-to-vm
qrexec_names := qrexec-client qrexec-policy qrexec-policy-exec
qubesdb_names := qubesdb-read qubesdb-write qubesdb-rm qubesdb-list qubesdb-multiread qubesdb-watch

.PHONY: help setup build go-build runsc run test go-test lint bench bench-build go-bench soak go-soak clean

help:
	@echo "make run     the desktop of coloured qubes (installs what it needs)"
	@echo "make test    all tests (installs what they need)"
	@echo "make build   every program into bin/"
	@echo "make lint    gofmt, go vet, staticcheck"
	@echo "make bench   measures a whole desktop, writes docs/PERFORMANCE.md"
	@echo "make soak    use while daemons are killed"
	@echo "make clean   remove bin/"

setup:
	@.ci/setup build run

build: setup
	$(again) go-build runsc

go-build:
	@.ci/setup find-go >/dev/null
	@mkdir -p $(bin)
	@echo "building (the first time takes some minutes: Fyne is compiled with its C parts)"
	@go build -o $(bin)/ $(addprefix ./cmd/,$(gui_programs))
	@CGO_ENABLED=0 go build -o $(bin)/ $(addprefix ./cmd/,$(programs))
	@mkdir -p $(bin)/agent
	@CGO_ENABLED=0 go build -o $(bin)/agent/ ./cmd/qubes-agent
	@CGO_ENABLED=0 go build -ldflags='-s -w' -o $(bin)/agent/ ./cmd/qvm
	@mkdir -p $(bin)/agent/admin
	@for name in $(filter-out $(dom0_names),$(qvm_names)); do ln -sf ../qvm $(bin)/agent/admin/$$name; done
	@for name in $(qvm_names); do ln -sf qvm $(bin)/$$name; done
	@for name in $(qrexec_names); do ln -sf qrexec $(bin)/$$name; done
	@for name in $(qubesdb_names); do ln -sf qubesdb $(bin)/$$name; done

# gVisor's runtime: Debian 12's own is too old for shared memory, so it is
# built from its pinned module, and static because it starts itself again
# inside an empty root.
runsc: $(bin)/runsc
$(bin)/runsc: assets/runsc/go.mod assets/runsc/go.sum
	@echo "building runsc (once, about two minutes)"
	@mkdir -p $(bin)
	@cd assets/runsc && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o $@ gvisor.dev/gvisor/runsc
	@touch $@

run: build
	@$(bin)/cubicle up

test: setup
	@.ci/setup test
	$(again) go-build runsc lint go-test

# What failed comes once more at the end: some read that alone.
go-test:
	@mkdir -p $(bin)
	@set -o pipefail; go test -timeout 20m ./... 2>&1 | tee $(bin)/test.log || { \
		echo "what failed:"; grep -A 12 -E -e '^ *--- FAIL|^panic:|^FAIL' $(bin)/test.log | grep -v -e 'level=' | cut -c -300 | tail -n 60; exit 1; }

lint:
	@unformatted=$$("$$(go env GOROOT)/bin/gofmt" -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt wants to change:"; echo "$$unformatted"; exit 1; fi
	@go vet ./...
	@go build -modfile=.ci/tools/go.mod -o $(bin)/tools/staticcheck honnef.co/go/tools/cmd/staticcheck
	@$(bin)/tools/staticcheck ./...

# The figures of docs/PERFORMANCE.md, measured on a whole desktop: about half an
# hour with the machine to itself. `make bench quick=1` takes a few
# minutes and writes to standard output.
bench: setup
	@.ci/setup test
	$(again) go-build runsc bench-build
	@$(bin)/bench/bench $(if $(quick),--quick,--write docs/PERFORMANCE.md) $(if $(cache),--cache $(cache))

bench-build:
	@mkdir -p $(bin)/bench
	@go build -o $(bin)/bench/ ./cmd/bench/emptywindow
	@CGO_ENABLED=0 go build -o $(bin)/bench/ ./cmd/bench ./cmd/bench/caller ./cmd/bench/painter ./daemon/engine/enginetest/testinit

# Every package's own benchmarks.
go-bench:
	go test -run '^$$' -bench . -benchtime 1s ./...

# The desktop in use while its daemons are killed 500 times at random instants,
# on each engine: some twenty minutes.
soak: setup
	@.ci/setup test
	$(again) go-build runsc go-soak

go-soak:
	for engine in crun runsc; do \
		CUBICLE_SOAK_ENGINE=$$engine CUBICLE_SOAK_KILLS=500 go test -count=1 -timeout 2h -v -run 'TestDesktop/soak' ./cmd/cubicle || exit 1; \
	done

clean:
	rm -rf $(bin)
