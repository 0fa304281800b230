"""What the flags of a host watch."""

import os
import resource
import subprocess

import pytest

from batchscale.comm.shared.flags import has_ended


@pytest.mark.parametrize("descriptor", [None, 1500])
def test_the_end_of_a_peer_is_seen_by_a_descriptor_of_any_number(descriptor):
    """Rank 0 of a thousand has a thousand connections; select raised there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= 1500:
        pytest.skip(f"needs descriptors up to 1,500; {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1501), hard))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        life = os.pidfd_open(process.pid)
        watched = life if descriptor is None else os.dup2(life, descriptor)
        assert not has_ended(watched)
        process.stdin.close()
        os.waitid(os.P_PIDFD, life, os.WEXITED | os.WNOWAIT)
        assert has_ended(watched)
        for opened in {life, watched}:
            os.close(opened)
