"""As much of Slurm as submitit asks for, on this machine: sbatch, srun, sacct, scancel as shell scripts.

FOLDER/N/ is job N: script, state, pid; jobs wait while FOLDER/hold holds a lower number than theirs.
"""

from __future__ import annotations

from pathlib import Path

_SCRIPTS = {
    "sbatch": """
        n=1; while ! mkdir "$JOBS/$n" 2>/dev/null; do n=$((n + 1)); done
        cp "$1" "$JOBS/$n/script"; echo PENDING > "$JOBS/$n/state"
        setsid "$BIN/job" "$n" > /dev/null 2>&1 < /dev/null &
        echo "Submitted batch job $n"
    """,
    "job": """
        at="$JOBS/$1"
        while [ -e "$JOBS/hold" ] && [ "$1" -gt "$(cat "$JOBS/hold")" ]; do
            [ -e "$at/cancelled" ] && exit
            sleep 0.1
        done
        echo RUNNING > "$at/state"
        SLURM_JOB_ID="$1" SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
            SLURM_JOB_NODELIST=here bash "$at/script"
        [ -e "$at/cancelled" ] && echo 'CANCELLED by 0' > "$at/state" || echo COMPLETED > "$at/state"
    """,
    "srun": """
        while [ "${1#--}" != "$1" ]; do
            [ "$1" = --output ] && out="$2"
            [ "$1" = --unbuffered ] && shift || shift 2
        done
        out="${out//%j/$SLURM_JOB_ID}"; out="${out//%t/0}"
        echo $$ > "$JOBS/$SLURM_JOB_ID/pid"
        exec "$@" > "$out" 2>&1
    """,
    "sacct": """
        echo 'JobID|State|NodeList'
        for at in "$JOBS"/[0-9]*; do echo "${at##*/}|$(cat "$at/state")|here"; done
        echo >> "$JOBS/asked"
    """,
    "scancel": """
        touch "$JOBS/$1/cancelled"
        [ -e "$JOBS/$1/pid" ] && kill -TERM "$(cat "$JOBS/$1/pid")" || echo 'CANCELLED by 0' > "$JOBS/$1/state"
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
        head = f"#!/bin/bash\nBIN='{programs}'; JOBS='{jobs}'\n"
        (programs / name).write_text(head + script)
        (programs / name).chmod(0o755)
    return jobs, {"PATH": f"{programs}:{path}"}
