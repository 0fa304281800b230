#!/usr/bin/env bash
# Everything that only a GPU can show, in 8 minutes: one table, and a line for each bar that was missed.
# Documents of the parts, and what they said, lie in $OUT (default build/gpu). docs/gpu.md says what is shown.
#
#   benchmarks/gpu.sh                        on a GPU
#   benchmarks/gpu.sh --device cpu --tiny    a rehearsal on any machine: no GPU minute is spent on a typo
set -uo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-build/gpu} PYTHONUNBUFFERED=1
unset PYTHONDONTWRITEBYTECODE # with it every process compiles all of torch anew
mkdir -p "$OUT"
rm -f "$OUT"/*.json "$OUT"/tests.xml "$OUT"/parts.log
PY=${PY:-python3}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
WHEELS=${WHEELS:-.whl} # what the machine lacks, carried along (make wheels): it may reach no package index
if ls "$WHEELS"/*.whl >/dev/null 2>&1; then
    site=$(mktemp -d)
    "$PY" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl || exit 2
    export PYTHONPATH="$PYTHONPATH:$site"
fi
slack=1
case " $* " in *" --tiny "*) slack=10 ;; esac # a rehearsal proves the way: no clock decides it
part() { # SECONDS NAME COMMAND...: a part that fails or hangs does not stop the next
    local seconds=$(($1 * slack)) name=$2
    shift 2
    echo "== $name" >>"$OUT/parts.log"
    timeout -k 5 "$seconds" "$@" >>"$OUT/parts.log" 2>&1
    echo "$name rc=$? ${SECONDS}s"
}
gpu() { # SECONDS NAME
    part "$1" "$2" "$PY" -m benchmarks.gpu "$2" --out "$OUT" "${arguments[@]+"${arguments[@]}"}"
}
arguments=("$@") at_once=()
[ "$slack" != 1 ] || ! "$PY" -c "import xdist" 2>/dev/null || at_once=(--numprocesses 4)
gpu 15 machine
part 80 tests "$PY" -m pytest -q -m gpu -p no:cacheprovider --junitxml "$OUT/tests.xml" \
    "${at_once[@]+"${at_once[@]}"}" tests/*/test_*_on_device.py
gpu 60 exact
gpu 85 trace
gpu 125 rates
gpu 85 jpeg
gpu 30 stalls
"$PY" -m benchmarks.gpu table --out "$OUT" "${arguments[@]+"${arguments[@]}"}"
