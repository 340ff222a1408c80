#!/bin/bash
# Plants each bug of this folder in a copy of the workspace, and reports how many seeds the simulation needs to find it.
# Not part of the test suite: it measures how much the simulation sees. Run it after a change of the simulation or of
# `member`.
#
#   core/tests/planted/run.sh [most seeds, default 20000]
#
# The copy is of the last commit. SCRATCH (default: a temporary folder) holds the copy and its build; CARGO_TARGET_DIR is
# ignored, because the copy must not replace the build of the workspace.
set -u
most=${1:-20000}
here=$(cd "$(dirname "$0")" && pwd)
root=$(git -C "$here" rev-parse --show-toplevel)
scratch=${SCRATCH:-$(mktemp -d)}
export CARGO_TARGET_DIR="$scratch/target"
mkdir -p "$scratch/copy"
git -C "$root" archive HEAD | tar -x -C "$scratch/copy"
cd "$scratch/copy" || exit 1

missed=0
for patch in "$here"/*.patch; do
    name=$(basename "$patch" .patch)
    if ! patch -s -p1 <"$patch"; then
        printf '%-24s the patch does not apply any more\n' "$name"
        missed=1
        git -C "$root" archive HEAD | tar -x -C "$scratch/copy"
        continue
    fi
    output=$(WHIMBREL_SIM_SEEDS=$most RUST_BACKTRACE=0 cargo test -q -p whimbrel-core --release --test simulation -- every_seed 2>&1)
    patch -s -R -p1 <"$patch"
    found=$(grep -oE 'seed [0-9]+: .{0,150}' <<<"$output" | head -1)
    if [ -n "$found" ]; then
        seed=$(sed -E 's/^seed ([0-9]+):.*/\1/' <<<"$found")
        printf '%-24s %6d seeds: %s\n' "$name" $((seed + 1)) "${found#seed $seed: }"
    else
        printf '%-24s missed in %d seeds\n' "$name" "$most"
        tail -3 <<<"$output"
        missed=1
    fi
done
[ -n "${SCRATCH:-}" ] || rm -rf "$scratch"
exit $missed
