#!/usr/bin/env bash
# Checks the dependencies against deny.toml (licences, sources, banned crates) and against the advisory databases:
# RustSec's for the server, npm's for the page. A database that cannot be reached is reported by a warning. In any case
# the committed copy of the advisories is checked (tests/advisories); it fails for an affected version.
#
# cargo-deny is used where it is installed, or installed under target/tools.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=0.20.2
TOOLS=${CARGO_TARGET_DIR:-target}/tools
PATH=$PATH:$(realpath -m "$TOOLS")/bin
PATIENCE=120                          # seconds for a database to come

passed=0 failed=0

main() {
    if have_cargo_deny; then
        holds 'licences, sources and bans' cargo deny --all-features check --hide-inclusion-graph bans licenses sources
        if timeout "$PATIENCE" cargo deny fetch db >/dev/null 2>&1; then
            holds 'known vulnerabilities in crates' cargo deny --all-features check --disable-fetch advisories
        else
            not_reached 'the RustSec database'
        fi
    else
        not_reached 'cargo-deny, for licences, sources and the RustSec database,'
    fi
    npm_audit
    holds 'the committed copy of the advisories' node tests/advisories/check.mjs
    holds 'affected versions are noticed' notices_affected
    # In cargo's format, which tests/sum.mjs reads.
    echo "test result: $passed passed; $failed failed"
    [ "$failed" = 0 ]
}

not_reached() {
    echo "WARNING: $1 cannot be reached from here: NOT CHECKED, but for the committed copy of the advisories"
}

# The check of the copy fails for affected versions and passes fixed ones.
notices_affected() {
    local folder status=0 file kind verdict name version wanted
    folder=$(mktemp -d)
    while read -r kind verdict name version; do
        if [ "$kind" = npm ]; then
            file=$folder/package-lock.json
            printf '{"packages":{"node_modules/%s":{"version":"%s"}}}' "$name" "$version" >"$file"
        else
            file=$folder/Cargo.lock
            printf '[[package]]\nname = "%s"\nversion = "%s"\n' "$name" "$version" >"$file"
        fi
        wanted=passes
        node tests/advisories/check.mjs "$file" >/dev/null || wanted=fails
        [ "$wanted" = "$verdict" ] || { echo "$name $version $wanted"; status=1; }
    done <<'LOCKED'
npm fails ws 8.20.0
npm fails ws 7.5.10
npm passes ws 8.21.0
npm fails nanoid 3.3.17
npm fails picomatch 4.0.3
crate fails tokio 1.42.0
crate passes tokio 1.42.1
crate fails rand 0.8.5
crate passes rand 0.8.6
crate fails anyhow 1.0.102
LOCKED
    rm -rf "$folder"
    return "$status"
}

have_cargo_deny() {
    command -v cargo-deny >/dev/null && return
    echo '== installing cargo-deny (a few minutes)'
    cargo install cargo-deny --version "$VERSION" --locked --quiet --root "$TOOLS"
}

holds() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
        passed=$((passed + 1))
    else
        echo "NOT ok: $what"
        failed=$((failed + 1))
    fi
}

# npm fails in the same way if its database cannot be reached and if it finds a vulnerability: only the report differs.
npm_audit() {
    local report
    report=$(timeout "$PATIENCE" npm audit --prefix static --omit=dev --json 2>/dev/null) || true
    if ! grep -q '"vulnerabilities"' <<<"$report"; then
        not_reached "npm's database"
        return
    fi
    holds 'known vulnerabilities in the packages of the page' node -e '
        const { high, critical } = JSON.parse(process.argv[1]).metadata.vulnerabilities;
        if (high + critical > 0) {
            console.error(`${high} high and ${critical} critical: npm audit --prefix static --omit=dev`);
            process.exit(1);
        }' "$report"
}

main
