"""A real Slurm on this machine for as long as a test: a controller and two nodes, n1 and n2, in a temporary folder.

Needs Debian's slurmctld, slurmd, slurm-client and munge, and where this is not root, nothing more: jobs run as who runs
the tests. Nothing of it is left when the test ends, nor when pytest is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.worlds import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scancel", "squeue", "scontrol", "sinfo")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # Debian's daemons, which a user's path may lack
_START_SECONDS, _END_SECONDS = 120, 60
_GUARD = """\
read -r
for process in /proc/[0-9]*; do
    grep -qz "^SLURM_CONF=$0$" "$process/environ" 2>/dev/null && kill -KILL "${process#/proc/}"
done
"""  # ends all of it where pytest is killed, and the pipe with it
_CONFIGURATION = """\
ClusterName=batchscale
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
{settings}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port} CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second_port} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm that are not on this machine."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


class Slurm:
    """One that runs.

    Attributes:
        folder: of its configuration, state and logs.
        environment: all that a command below it finds set: HOME, PATH, LANG, and where this Slurm is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": os.environ["HOME"],
            "PATH": f"{Path(sys.executable).parent}:{_PATH}",
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._commands: list[subprocess.Popen[str]] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, settings: str = "") -> None:
        """Until both nodes are idle.

        Args:
            settings: more lines for slurm.conf.
        """
        host = socket.gethostname().split(".")[0]
        ports = {name: free_port() for name in ("controller_port", "first_port", "second_port")}
        text = _CONFIGURATION.format(folder=self.folder, host=host, user=getpass.getuser(), settings=settings, **ports)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        words = ["bash", "-c", _GUARD, str(self.folder / "slurm.conf")]
        self._guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        munge = self.folder / "munge"
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={munge}.socket", f"--key-file={munge}.key",
            f"--pid-file={munge}.pid", f"--seed-file={munge}.seed",
        )  # fmt: skip
        self.wait_until((self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node)
        self.wait_until(lambda: self.run("sinfo", "-h", "-N", "-o", "%T")[1].split() == ["idle", "idle"])

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}{len(self._daemons)}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [name, *arguments], env=self.environment, stdout=out, stderr=out, cwd=self.folder,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )
            )  # fmt: skip

    def wait_until(self, true: Callable[[], bool], seconds: float = _START_SECONDS) -> None:
        """Until a condition holds; AssertionError with the daemons' logs where it does not come to hold."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(self.logs())
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of all logs."""
        files = sorted(self.folder.glob("*.out"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def begin(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """A command below this Slurm, such as srun, that goes on."""
        command = subprocess.Popen(
            words, env={**self.environment, **environment}, cwd=cwd, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._commands.append(command)
        return command

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error) of a command from start to end."""
        process = self.begin(*words, cwd=cwd, **environment)
        out, err = process.communicate()
        return process.returncode, out, err

    def jobs(self) -> dict[str, str]:
        """The state of every job that is not over, by its number."""
        code, out, _ = self.run("squeue", "--all", "--noheader", "--format=%A %T")
        return dict(line.split() for line in out.splitlines()) if code == 0 else {}

    def wait_for_jobs(self, seconds: float = 300) -> None:
        """Until no job waits or runs."""
        self.wait_until(lambda: not self.jobs(), seconds)

    def living(self) -> list[int]:
        """Process ids of all that lives below it: daemons, steps, tasks and commands."""
        mark, numbers = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    ended = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
                    if not ended and mark in (entry / "environ").read_bytes().split(b"\0"):
                        numbers.append(int(entry.name))
        return numbers

    def stop(self) -> None:
        """End jobs, then daemons, then whatever is left."""
        for number in self.jobs():
            self.run("scancel", "--signal=KILL", "--full", number)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self.living() and time.monotonic() < deadline:
            if time.monotonic() > deadline - _END_SECONDS + 5:
                for number in self.living():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
            time.sleep(0.05)
        if self._guard is not None:
            self._guard.communicate()
        for process in (*self._daemons, *self._commands):
            process.wait(_END_SECONDS)
        for command in self._commands:
            for stream in (command.stdout, command.stderr):
                if stream is not None:
                    stream.close()
        assert not self.living(), f"left behind: {self.living()}"


@contextlib.contextmanager
def slurm(settings: str = "") -> Iterator[Slurm]:
    """A Slurm of two nodes for as long as the block; one at a time on this machine, whichever process asks.

    Args:
        settings: more lines for slurm.conf.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((Path(tempfile.gettempdir()) / f"batchscale-slurm-{os.getuid()}").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not in pytest's folders: the path of a socket has at most 107 characters.
        cluster = Slurm(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))))
        stack.callback(cluster.stop)
        cluster.start(settings)
        yield cluster
