"""As much of Slurm as a study asks for, on this machine: sbatch, srun, squeue, scancel as shell scripts.

FOLDER/N/ is job N: script, options, state, pid; jobs wait while FOLDER/hold holds a lower number than theirs. The
partition "none" is not there, and one node has four cores. FOLDER/checked lists what was asked by --test-only; while
FOLDER/down is there squeue fails. Whoever has SQUEUE_PARTITION or SCANCEL_STATE set sees no job.
"""

from __future__ import annotations

from pathlib import Path

_TELL = 'tell() { echo "$2" > "$JOBS/$1/$$.part"; mv "$JOBS/$1/$$.part" "$JOBS/$1/state"; }'
"""The state of a job, which squeue may be reading: whole, the old one or the new."""
_SCRIPTS = {
    "sbatch": """
        flags=(); while [ "${1#--}" != "$1" ]; do flags+=("${1#--}"); shift; done
        [ $# = 0 ] && set /dev/stdin
        options=$(mktemp -p "$JOBS"); text=$(cat "$1")
        {
            sed -n 's/^#SBATCH --//p' <<< "$text"
            echo "${SBATCH_PARTITION:+partition=$SBATCH_PARTITION}"; echo "${SBATCH_TIMELIMIT:+time=$SBATCH_TIMELIMIT}"
            printf '%s\\n' "${flags[@]}"
        } | sed '/^$/d' > "$options"
        last() { sed -n "s/^$1=//p" "$options" | tail -n 1; }
        refused=""
        [ "$(last partition)" = none ] && refused='Invalid partition name specified'
        grep -qx test-only "$options" && cat "$options" >> "$JOBS/checked" && [ "$(last ntasks-per-node)" -gt 4 ] &&
            refused='Requested node configuration is not available'
        [ -e "$JOBS/full" ] && ! grep -qx test-only "$options" && refused='Job violates accounting/QOS policy'
        [ -n "$refused" ] && echo "allocation failure: $refused" >&2
        if [ -n "$refused" ] || grep -qx test-only "$options"; then rm "$options"; [ -z "$refused" ]; exit; fi
        n=1; while ! mkdir "$JOBS/$n" 2>/dev/null; do n=$((n + 1)); done
        cp "$1" "$JOBS/$n/script"; mv "$options" "$JOBS/$n/options"; tell "$n" PENDING
        setsid "$BIN/job" "$n" > /dev/null 2>&1 < /dev/null &
        echo "Submitted batch job $n"
    """,
    "job": """
        at="$JOBS/$1"
        while [ -e "$JOBS/hold" ] && [ "$1" -gt "$(cat "$JOBS/hold")" ]; do
            [ -e "$at/cancelled" ] && exit
            sleep 0.1
        done
        tell "$1" RUNNING
        SLURM_JOB_ID="$1" SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
            SLURM_JOB_NODELIST=here bash "$at/script"
        code=$?
        if [ -e "$at/killed" ]; then tell "$1" "$(cat "$at/killed")"
        elif [ -e "$at/cancelled" ]; then tell "$1" CANCELLED
        elif [ $code = 0 ]; then tell "$1" COMPLETED
        else tell "$1" FAILED; fi
    """,
    "srun": """
        while [ "${1#--}" != "$1" ]; do
            [ "$1" = --output ] && out="$2"
            [ "$1" = --error ] && err="$2"
            case "$1" in --output | --error) shift 2 ;; *) shift ;; esac
        done
        out="${out//%j/$SLURM_JOB_ID}"; err="${err//%j/$SLURM_JOB_ID}"
        echo $$ > "$JOBS/$SLURM_JOB_ID/pid"
        exec "$@" > "${out//%t/0}" 2> "${err//%t/0}"
    """,
    "squeue": """
        [ -e "$JOBS/down" ] && exit 1
        [ -n "$SQUEUE_PARTITION" ] && exit
        for at in "$JOBS"/[0-9]*; do echo "${at##*/} $(cat "$at/state")"; done
        echo >> "$JOBS/asked"
    """,
    "scancel": """
        [ -n "$SCANCEL_STATE" ] && exit
        touch "$JOBS/$1/cancelled"
        [ -e "$JOBS/$1/pid" ] && kill -TERM "$(cat "$JOBS/$1/pid")" || tell "$1" CANCELLED
    """,
}


def fake_slurm(folder: Path, path: str) -> tuple[Path, dict[str, str]]:
    """The folder of the jobs, and the environment variable that finds the scripts.

    Args:
        folder: new.
        path: the PATH so far.
    """
    programs, jobs = folder / "bin", folder / "jobs"
    programs.mkdir(parents=True)
    jobs.mkdir()
    for name, script in _SCRIPTS.items():
        head = f"#!/bin/bash\nBIN='{programs}'; JOBS='{jobs}'\n{_TELL}\n"
        (programs / name).write_text(head + script)
        (programs / name).chmod(0o755)
    return jobs, {"PATH": f"{programs}:{path}"}


def options_of(job: Path) -> dict[str, str]:
    """sbatch's options of a job, by name: on the command line, else of a variable, else of the script."""
    pairs = (line.partition("=") for line in (job / "options").read_text().splitlines())
    return {name: value for name, _, value in pairs}
