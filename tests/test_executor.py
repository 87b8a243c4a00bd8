"""Ray on this machine: which of its servers run, and that it works without the others."""

from __future__ import annotations

import posixpath

import psutil

from pipelines.executor import UNASKED, Executor


def test_servers_that_a_build_never_asks_are_not_started() -> None:
    from ray._private.node import Node

    usual = [getattr(Node, name) for name in UNASKED]
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with Executor(1) as executor:
        assert dict(executor.run(posixpath.basename, [f"a/{n}" for n in range(20)])) == {
            f"a/{n}": f"{n}" for n in range(20)
        }
        started = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
        told = [" ".join(one.cmdline()) for one in started]
    assert any("raylet" in line for line in told), "the cluster is not among what was looked at"
    assert not [line for line in told if any(name in line for name in ("dashboard/dashboard.py", "monitor.py"))]
    assert [getattr(Node, name) for name in UNASKED] == usual, "Ray is left as it was"
    # The raylet's own helpers end when they see that it is gone, a moment later.
    assert not psutil.wait_procs(started, timeout=30)[1]
