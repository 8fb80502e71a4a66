# make build   the optimised, static program: target/HOST/release/vipherald
# make test    all tests, with real kernels and the real keepalived in network namespaces
# make lint    format, clippy, documentation, licences, scripts, manual
# make demo    a failover, with and without vipherald
# make bench   costs, compared with keepalived, arping and ip; QUESTIONS=scale for one of them
# make soak    two hours of chaos tests; MINUTES=5 for less
# make test-fuzz   runs the inputs in fuzz/corpus, once each
# make fuzz    every target of fuzz/ for an hour; MINUTES=5 for less. Needs cargo-fuzz
# make mutants   changes to modules without I/O that no test notices; ONLY=core/src/wire for fewer
# make bench-convergence   measures and plots who follows when, against keepalived alone and arping
# make instructions   counts instructions, fails if a tenth was added; ACCEPT=1 accepts them
# make install   installs into DESTDIR (staging) and PREFIX; run `make build` first
# make packages   reproducible Debian and RPM packages, in target/packages; ARCH=arm64 cross-compiles
# make container   an image with the program alone, an OCI archive in target/packages; ARCH=arm64 likewise
# make test-packages   checks their contents, and that two builds are equal; ARCH=arm64 likewise
# make smoke   has the program move an address, and a neighbour follow; ARCH=arm64 emulates the program
# make test-keepalived-versions   the tests with keepalived, with 2.1.5, 2.2.7 and 2.3.3 of it
# make test-fleet   checks the examples for Ansible and Kubernetes
# make test-vm   a virtual machine with the packages: failovers on VLAN and bond, real systemd;
#                ARCH=arm64 emulates that machine
# make clean   removes everything that was built

PREFIX ?= /usr
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
QUESTIONS ?=
MINUTES ?= 120

CARGO ?= cargo
# The architectures, by Debian's names, for which this cross-compiles. Without ARCH, it is this machine's.
CPU_amd64 := x86_64
CPU_arm64 := aarch64
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
CPU := $(if $(ARCH),$(or $(CPU_$(ARCH)),$(error ARCH can be amd64 or arm64, not $(ARCH))),$(firstword $(subst -, ,$(HOST))))
PLATFORM := $(if $(filter $(CPU)-%,$(HOST)),$(HOST),$(CPU)-unknown-linux-gnu)
# A program for another architecture runs under emulation.
CROSS := $(if $(filter $(HOST),$(PLATFORM)),,$(ARCH))
EMULATOR := $(if $(CROSS),qemu-$(CPU)-static)
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/$(PLATFORM)/release/vipherald
GENERATED := $(TARGET)/generated/$(PLATFORM)
GENERATE = $(CARGO) run --quiet --locked --package vipherald-generate -- $(PLATFORM) $(GENERATED)
PACKAGES := $(TARGET)/packages
DEB_ARCHITECTURE = $(or $(ARCH),$(shell dpkg --print-architecture))
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# No file in a package has a later time, so the same source makes the same package.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
# A static program starts faster and needs no library; docs/performance.md has the figures. The other
# flags make it smaller: they fold identical functions, pack relocations, and omit unwind tables, which
# panic=abort never uses: a panic prints its message, but no backtrace. The remapped paths keep the
# builder's directories out of it. With --target, cargo does not pass these flags to build scripts.
STATIC := -C target-feature=+crt-static -C force-unwind-tables=no -C link-arg=-Wl,--icf=all \
	-C link-arg=-Wl,--pack-dyn-relocs=relr -C link-arg=-Wl,--no-eh-frame-hdr \
	-C link-arg=packaging/no-unwinding.ld \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=crates \
	--remap-path-prefix=$(shell rustc --print sysroot)/lib/rustlib/src/rust=rust
# rustc links with its own lld here, but with the cross compiler's GNU ld elsewhere, which folds nothing.
LLD = -C link-arg=-fuse-ld=lld -C link-arg=-B$(shell rustc --print sysroot)/lib/rustlib/$(HOST)/bin/gcc-ld
LINKER = CARGO_TARGET_$(shell echo $(PLATFORM) | tr a-z- A-Z_)_LINKER=$(CPU)-linux-gnu-gcc
# Tests and the demo run in temporary namespaces of their own, also without root.
ISOLATED := $(CARGO) --config 'target."cfg(unix)".runner="tests/lab/isolate"'
BENCH = HABETS_ARPING=$(abspath $(TARGET)/habets-arping) $(ISOLATED) bench --quiet --locked \
	--package vipherald-lab --bench bench -- $(abspath $(BINARY))

.PHONY: build test lint demo bench bench-convergence instructions soak fuzz mutants install \
	packages container smoke test-fuzz test-packages test-keepalived-versions test-fleet test-vm clean prerequisites cross

build: $(if $(CROSS),cross)
	RUSTFLAGS='$(STATIC)$(if $(CROSS), $(LLD))' $(if $(CROSS),$(LINKER)) $(CARGO) build --release --locked --target $(PLATFORM)
	@$(EMULATOR) $(BINARY) --version >/dev/null || { echo "It does not start: packed relocations need glibc 2.36." >&2; exit 1; }
	$(GENERATE)

test: prerequisites
	$(ISOLATED) test --workspace --locked --no-fail-fast

# cargo-deny runs only if it is installed (`cargo install cargo-deny --locked`), because compiling it
# takes four minutes of processor time. It does not check advisories here: they come from the network,
# and an advisory about old code should not stop new code.
lint: prerequisites
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if rustup toolchain list 2>/dev/null | grep -q '^$(MSRV)-'; then \
		$(CARGO) +$(MSRV) check --quiet --workspace --locked --target-dir $(TARGET)/msrv; fi
	@# The core does no I/O: what could, it does not depend on.
	! $(CARGO) tree --locked --package vipherald-core --edges normal --prefix none | \
		grep -E '^(clap|libc|log|nix|rtnetlink|socket2|tokio) '
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny --locked check --deny warnings --hide-inclusion-graph \
		bans licenses sources; fi
	grep -rlE '^#!/bin/(ba)?sh' --exclude-dir=target --exclude-dir=.git . | xargs shellcheck
	$(GENERATE)
	.ci/actionlint/run $(TARGET)/actionlint
	mandoc -T lint -W warning $(GENERATED)/*.[58]
	@for page in $(GENERATED)/*.[58]; do \
		if LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings --local-file -Tutf8 -Z $$page 2>&1 >/dev/null | \
			grep .; then exit 1; fi; done

demo: prerequisites build
	@$(ISOLATED) run --quiet --locked --package vipherald-lab --example demo -- $(BINARY)

bench: prerequisites build
	.ci/packages benches/packages.txt
	benches/habets-arping $(TARGET)/habets-arping
	rm -rf $(TARGET)/bench
	$(BENCH) $(QUESTIONS)

bench-convergence: prerequisites build
	$(BENCH) convergence

instructions: prerequisites build
	tests/lab/isolate benches/instructions $(BINARY) $(if $(ACCEPT),--accept)

soak: prerequisites
	VIPHERALD_CHAOS_SECONDS=$$(($(MINUTES) * 60)) $(ISOLATED) test --release --quiet --locked \
		--test chaos -- --nocapture

# Without coverage any compiler works. Inputs that once failed must not fail again.
test-fuzz: prerequisites
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) build --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
	@for corpus in fuzz/corpus/*; do \
		$(TARGET)/fuzz/debug/$${corpus##*/} $$corpus/* 2>$(TARGET)/fuzz/log || \
		{ tail -n 40 $(TARGET)/fuzz/log; exit 1; }; \
		echo "$${corpus##*/}: $$(ls $$corpus | wc -l) inputs"; done

# The stable compiler accepts the flags for coverage only with RUSTC_BOOTSTRAP=1.
fuzz: MINUTES = 60
fuzz:
	for target in $$($(CARGO) fuzz list); do RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- \
		-max_total_time=$$(($(MINUTES) * 60)) || exit 1; done

# Needs cargo-mutants (`cargo install cargo-mutants --locked`); all of them take hours.
mutants:
	SIMULATION_RUNS=200 SIMULATION_LARGE_RUNS=0 $(CARGO) mutants --package vipherald-core --output $(TARGET) --re '^$(ONLY)'

# SELinux lets keepalived run a file in this directory unconfined; a link from here to another place
# would not suffice. Existing settings stay.
install: SHARE = $(DESTDIR)$(PREFIX)/share
install:
	@test -x $(BINARY) || { echo "There is no $(BINARY): run 'make build' first." >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/libexec/keepalived/vipherald
	install -d $(DESTDIR)$(PREFIX)/bin
	ln -sf ../libexec/keepalived/vipherald $(DESTDIR)$(PREFIX)/bin/vipherald
	install -D -m 644 -t $(DESTDIR)$(UNITDIR) systemd/vipherald-*
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/catalog packaging/vipherald.catalog
	test -e $(DESTDIR)$(SYSCONFDIR)/vipherald/vipherald.toml || install -D -m 644 \
		examples/vipherald.toml $(DESTDIR)$(SYSCONFDIR)/vipherald/vipherald.toml
	install -D -m 644 -t $(SHARE)/man/man8 $(GENERATED)/vipherald.8
	install -D -m 644 -t $(SHARE)/man/man5 $(GENERATED)/vipherald.toml.5
	gzip --force --best --no-name $(SHARE)/man/man8/vipherald.8 $(SHARE)/man/man5/vipherald.toml.5
	install -D -m 644 $(GENERATED)/vipherald.bash $(SHARE)/bash-completion/completions/vipherald
	install -D -m 644 -t $(DESTDIR)$(ZSHDIR) $(GENERATED)/_vipherald
	install -D -m 644 -t $(SHARE)/fish/vendor_completions.d $(GENERATED)/vipherald.fish
	install -D -m 644 -t $(SHARE)/doc/vipherald README.md README.zh-CN.md docs/*.* \
		$(GENERATED)/copyright $(GENERATED)/vipherald.cdx.json
	install -m 644 CHANGELOG.md $(SHARE)/doc/vipherald/changelog
	gzip --force --best --no-name $(SHARE)/doc/vipherald/changelog
	cd examples && find . -type f | xargs -I {} \
		install -D -m 644 {} $(abspath $(SHARE))/doc/vipherald/examples/{}
	install -D -m 644 -t $(SHARE)/doc/vipherald/examples/keepalived.service.d \
		systemd/keepalived.service.d/vipherald.conf

# On Debian, zsh reads completions from another directory.
packages: prerequisites build
	mkdir -p $(PACKAGES)
	rm -rf $(TARGET)/stage $(PACKAGES)/*_$(DEB_ARCHITECTURE).deb $(PACKAGES)/*.$(CPU).rpm
	umask 022 && $(MAKE) --no-print-directory install DESTDIR=$(TARGET)/stage/rpm
	packaging/rpm/build $(TARGET)/stage/rpm $(VERSION) $(CPU) $(PACKAGES)
	umask 022 && $(MAKE) --no-print-directory install DESTDIR=$(TARGET)/stage/deb \
		ZSHDIR=$(PREFIX)/share/zsh/vendor-completions
	packaging/deb/build $(TARGET)/stage/deb $(VERSION) $(DEB_ARCHITECTURE) $(PACKAGES)

container: build
	.ci/packages packaging/container/packages.txt
	mkdir -p $(PACKAGES)
	packaging/container/build $(BINARY) $(VERSION) $(DEB_ARCHITECTURE) $(PACKAGES)

smoke: prerequisites build
	tests/lab/isolate packaging/smoke $(abspath $(BINARY)) $(EMULATOR)

# ELSEWHERE is a folder of packaging/elsewhere, if that has run already.
test-packages: packages
	packaging/test $(PACKAGES) $(DEB_ARCHITECTURE) $(CPU) $(ELSEWHERE)

# Debian's bullseye, bookworm and trixie have 2.1.5, 2.2.7 and 2.3.3.
test-keepalived-versions: prerequisites
	.ci/packages tests/versions/packages.txt
	for release in bullseye bookworm trixie; do \
		folder=$(abspath $(TARGET))/keepalived/$$release && \
		tests/versions/keepalived $$release $$folder && \
		echo "--- $$($$folder/bin/keepalived --version 2>&1 | head -n 1)" && \
		PATH=$$folder/bin:$$PATH $(ISOLATED) test --locked --no-fail-fast \
			--package vipherald --test keepalived_conf --test notify --test failover --test docs \
			--package vipherald-lab --test keepalived || exit 1; done

test-fleet: prerequisites build
	tests/fleet/run $(BINARY) $(TARGET)/fleet

test-vm: packages
	$(if $(CROSS),.ci/packages tests/vm/$(CROSS).txt)
	ARCH=$(ARCH) tests/vm/run

clean:
	$(CARGO) clean

prerequisites:
	@.ci/packages

# Debian's compiler links, and rustup has Rust's standard library.
cross:
	@.ci/packages packaging/cross/$(CROSS).txt
	@rustup target list --installed | grep -qx $(PLATFORM) || rustup target add $(PLATFORM)
