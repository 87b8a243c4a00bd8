"""Answers by several processes of a Ray cluster, one a GPU: each answers its share into a journal of its own.

Batches are the same as in one process, and so are the bytes: rows are merged when all are there. Ray starts a process
again that died; it goes on behind its last batch. All machines must see the run, the dataset and the answers' folder.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from manifests.errors import Failed, UserError
from salmonn.evaluation.answers import Book
from salmonn.evaluation.asking import Asking
from salmonn.evaluation.respondent import RunModel, RunRespondent
from salmonn.training.parallel import first_line
from salmonn.training.ray_train import RESTARTS, cluster

if TYPE_CHECKING:
    from salmonn.evaluation.generate import OnBatch
    from salmonn.evaluation.request import Request, Share

LOOK = 1.0
"""Seconds between looks at the journals, to tell how far the answers are."""


def answer_on_ray(
    respondent: RunRespondent,
    asking: Asking,
    request: Request,
    folder: Path,
    todo: dict[str, list[int]],
    share: Share,
    on_batch: OnBatch | None,
) -> None:
    """Answer the batches `todo` of each task into the begun books in `folder`, by processes of a cluster.

    UserError if the cluster cannot be reached; Failed if a process kept dying.
    """
    workers = max(1, share.workers)
    parts = dealt(todo, workers)
    if not any(parts):
        return
    config = respondent.run.config
    told = {
        "run": str(config.folder.absolute()),
        "name": respondent.name,
        "step": respondent.step,
        "request": msgspec.json.encode(request),
        "data": asking.dataset.url,
        "recipe": request.recipe or config.recipe,
        "answers": str(folder.absolute()),
        "folder": os.getcwd(),
    }
    with cluster(share.address or "local", workers) as ray:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if config.device == "cuda" and gpus < workers:
            raise UserError(f"device is 'cuda' but the cluster has {gpus} GPU(s) for --workers {workers}")
        told["gpu"] = config.device != "cpu" and gpus >= workers
        task = ray.remote(num_cpus=1, num_gpus=1 if told["gpu"] else 0, max_retries=RESTARTS)(work)
        running = [task.remote({**told, "process": at, "todo": part}) for at, part in enumerate(parts) if part]
        seen = {name: 0 for name in todo}
        while running:
            ready, running = ray.wait(running, timeout=LOOK)
            look(folder, asking, request, respondent.name, todo, seen, on_batch)
            for one in ready:
                try:
                    mistake = ray.get(one)
                except ray.exceptions.RayError as error:
                    raise Failed(f"a process stopped, and {RESTARTS} more in its place: {first_line(error)}") from None
                if mistake is not None:
                    raise (UserError if mistake["mistake"] else Failed)(mistake["error"])


def dealt(todo: dict[str, list[int]], workers: int) -> list[dict[str, list[int]]]:
    """Deal batches in turns: those of a task lie next to each other by length, so that all shares cost the same."""
    parts: list[dict[str, list[int]]] = [{} for _ in range(workers)]
    every = [(task, number) for task, numbers in todo.items() for number in numbers]
    for place, (task, number) in enumerate(every):
        parts[place % workers].setdefault(task, []).append(number)
    return parts


def look(
    folder: Path,
    asking: Asking,
    request: Request,
    name: str,
    todo: dict[str, list[int]],
    seen: dict[str, int],
    on_batch: OnBatch | None,
) -> None:
    """Tell how many examples were answered since the last look."""
    from salmonn.evaluation.generate import plan_of

    if on_batch is None:
        return
    for task, numbers in todo.items():
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            there = Book(folder, plan_of(name, asking, request, task)).batches()
            now = sum(len(asking.batches[task][number]) for number in numbers if number in there)
            if now > seen[task]:
                on_batch(task, now - seen[task], asking.count(task))
                seen[task] = now


def work(told: dict[str, Any]) -> dict[str, Any] | None:
    """Be one process: answer its share; return the mistake, which would be the same when tried again, or None."""
    from salmonn.evaluation.generate import answer_batches, plan_of
    from salmonn.evaluation.request import Request

    if not told["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray lets a process that asked for none see all
    with contextlib.suppress(OSError):
        os.chdir(told["folder"])
    try:
        request = msgspec.json.decode(told["request"], type=Request)
        respondent = RunModel(told["run"]).at(told["step"])
        if respondent.name != told["name"]:
            raise UserError(f"the run is another here: {respondent.name}, not {told['name']}")
        asking = request.asking(told["data"], told["recipe"])
        for task, numbers in told["todo"].items():
            book = Book(Path(told["answers"]), plan_of(respondent.name, asking, request, task))
            left = [number for number in numbers if number not in book.batches()]
            answer_batches(respondent, asking, request, book, left, process=told["process"])
    except (UserError, Failed) as error:
        return {"error": str(error), "mistake": isinstance(error, UserError)}
    return None
