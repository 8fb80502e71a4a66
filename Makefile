# make build   the program, optimised and static: target/HOST/release/vipherald
# make test    all tests: real kernels and the real keepalived in network namespaces
# make lint    format, clippy, documentation, licences and advisories, scripts, manual
# make demo    a failover, with and without vipherald; LOSS=30 changes the share of lost frames
# make bench   the first frame, purges, memory and size, beside arping and ip
# make soak    chaos for two hours: MINUTES=5 for less
# make bench-convergence   who follows when, beside keepalived alone and arping: draws it
# make install into DESTDIR (staging) and PREFIX; needs `make build` before
# make clean

PREFIX ?= /usr
DESTDIR ?=
LOSS ?= 60
MINUTES ?= 120

CARGO ?= cargo
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
BINARY := $(or $(CARGO_TARGET_DIR),target)/$(HOST)/release/vipherald
# A static program starts sooner and needs no library; docs/measurements.md has the figures. The
# rest makes it smaller: identical functions are folded, relocations are packed, and there are no
# tables for unwinding, which panic=abort never does: a panic has its message, and no backtrace.
# With --target, cargo keeps these flags from build scripts.
STATIC := -C target-feature=+crt-static -C force-unwind-tables=no -C link-arg=-Wl,--icf=all \
	-C link-arg=-Wl,--pack-dyn-relocs=relr -C link-arg=-Wl,--no-eh-frame-hdr \
	-C link-arg=packaging/no-unwinding.ld
# Tests and the demo run in namespaces of their own, of which nothing survives, without root too.
ISOLATED := $(CARGO) --config 'target."cfg(unix)".runner="tests/lab/isolate"'

.PHONY: build test lint demo bench bench-convergence soak install clean packages

build:
	RUSTFLAGS='$(STATIC)' $(CARGO) build --release --locked --target $(HOST)
	@$(BINARY) --version >/dev/null || { echo "It does not start: packed relocations need glibc 2.36." >&2; exit 1; }

test: packages
	$(ISOLATED) test --workspace --locked --no-fail-fast

# cargo-deny runs where it is installed (`cargo install cargo-deny --locked`): it takes four minutes
# of processor time to compile. Advisories are not for here: they come from the network, and one
# about old code should not stop new code.
lint: packages
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny --locked check --hide-inclusion-graph bans licenses sources; fi
	grep -rlE '^#!/bin/(ba)?sh' --exclude-dir=target --exclude-dir=.git . | xargs shellcheck
	mandoc -T lint -W warning packaging/man/*.8

demo: packages build
	@$(ISOLATED) run --quiet --locked --package vipherald-lab --example demo -- $(BINARY) $(LOSS)

bench: packages build
	$(ISOLATED) bench --quiet --locked --package vipherald-lab --bench first_frame -- $(BINARY)

bench-convergence: packages build
	$(ISOLATED) bench --quiet --locked --package vipherald-lab --bench convergence -- $(BINARY)

soak: packages
	VIPHERALD_CHAOS_SECONDS=$$(($(MINUTES) * 60)) $(ISOLATED) test --quiet --locked --test chaos -- --nocapture

# The file itself is where SELinux lets keepalived run it unconfined; a link from there to elsewhere
# would not do.
install:
	@test -x $(BINARY) || { echo "There is no $(BINARY): run 'make build' first." >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/libexec/keepalived/vipherald
	install -d $(DESTDIR)$(PREFIX)/bin
	ln -sf ../libexec/keepalived/vipherald $(DESTDIR)$(PREFIX)/bin/vipherald
	install -D -m 644 packaging/man/vipherald.8 $(DESTDIR)$(PREFIX)/share/man/man8/vipherald.8
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/vipherald/examples examples/vipherald.toml
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/vipherald/examples/keepalived \
		examples/keepalived/*.conf

clean:
	$(CARGO) clean

packages:
	@.ci/packages
