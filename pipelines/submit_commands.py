"""The command submit: what it prints while a build runs on a cluster."""

from __future__ import annotations

import sys

from manifests.console import console
from pipelines.jobs import Jobs
from pipelines.submit import Order, Sent
from pipelines.submit import submit as send


def submit(
    recipe: str,
    root: str,
    out: str,
    address: str,
    workers: int | None = None,
    more: tuple[str, ...] = (),
    insecure: bool = False,
    wait: bool = True,
    again: bool = False,
    shared_storage: bool = False,
    code: bool = False,
) -> int:
    """Build a dataset on the cluster whose dashboard is at `address`; return the exit code of the build.

    With `wait` the build's output is printed as it comes; without, 0 is returned as soon as the job is accepted.
    """
    order = Order(
        recipe=recipe, root=root, out=out, workers=workers, more=more, shared_storage=shared_storage, code=code
    )
    jobs, sent = send(order, address, insecure=insecure, again=again)
    say(jobs, sent)
    if sent.known and sent.known.over:
        return sent.known.exit_code
    if not wait:
        console.print(
            f"the same command without --no-wait follows it; {how_to_stop(jobs, sent)} stops it", markup=False
        )
        return 0
    try:
        job = jobs.follow(sent.job, write)
    except KeyboardInterrupt:
        console.print(f"\nthe job {sent.job} goes on; {how_to_stop(jobs, sent)} stops it", markup=False)
        raise
    console.print(f"{sent.job}: {job.status}", markup=False)
    return job.exit_code


def how_to_stop(jobs: Jobs, sent: Sent) -> str:
    """Return the command that stops a job."""
    return f"ray job stop --address {jobs.address} {sent.job}"


def say(jobs: Jobs, sent: Sent) -> None:
    """Print what became of an order."""
    if sent.new:
        console.print(f"sent to {jobs.address} as {sent.job}", markup=False)
    elif sent.known and sent.known.over:
        told = "has built this before; --again runs it anew (what is complete takes it seconds)"
        console.print(f"{sent.job} {told}", markup=False)
    else:
        console.print(f"{sent.job} builds this already", markup=False)
    if jobs.headers and jobs.address.startswith("http:") and not jobs.near:
        tunnel = "ssh -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265"
        console.print(f"the token has crossed the network unencrypted; a tunnel keeps it in: {tunnel}", markup=False)


def write(text: str) -> None:
    """Print a piece of a job's output, without what could steer the terminal."""
    sys.stdout.write("".join(c for c in text if c in "\n\t" or c.isprintable()))
    sys.stdout.flush()
