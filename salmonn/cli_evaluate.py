"""Commands of evaluation: how answers are made, and what they are worth. A part of the roof."""

from __future__ import annotations

from typing import Annotated

import typer

from salmonn.cli_options import RecipeName, Stage, app

Run = Annotated[str, typer.Argument(help="The folder of the run.")]
Data = Annotated[str, typer.Option(help="The dataset, by default the run's.", show_default=False)]
Mixture = Annotated[str, typer.Option("--recipe", help="A recipe, by default the run's.", show_default=False)]
Tasks = Annotated[str, typer.Option(help="Only these tasks, with commas between; by default all.", show_default=False)]
Limit = Annotated[int | None, typer.Option(help="At most so many examples of each task.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed of which examples, where there is a limit.")]
Beams = Annotated[int, typer.Option(help="Width of the beam search; 1 is greedy.")]
MostTokens = Annotated[
    int | None,
    typer.Option(help="Longest answer, in tokens; by default 200, more for phones.", show_default=False),
]
LoraScale = Annotated[float, typer.Option(help="Factor on the strength of LoRA; 1 is as trained.")]
BatchSeconds = Annotated[float, typer.Option(help="Audio in a batch, with its padding.")]
BatchExamples = Annotated[int, typer.Option(help="Examples in a batch.")]
Out = Annotated[str, typer.Option(help="Where the answers go, by default RUN/evaluation/STAGE.", show_default=False)]
Anew = Annotated[bool, typer.Option("--anew", help="Replace answers that were made otherwise.")]
Processes = Annotated[int, typer.Option(min=0, help="Processes on a Ray cluster, one a GPU; 0 answers here.")]
Cluster = Annotated[str, typer.Option(help="Of the Ray cluster, 'auto' for this machine's.")]
JudgeUrl = Annotated[str, typer.Option(help="Address of an OpenAI-compatible endpoint that judges free answers.")]
JudgeModel = Annotated[str, typer.Option(help="The name that the endpoint knows its model by.")]


@app.command()
def generate_answers(
    run: Run,
    data: Data = "",
    recipe: Mixture = "",
    stage: Stage = "evaluate",
    tasks: Tasks = "",
    limit: Limit = None,
    seed: Seed = 0,
    beams: Beams = 4,
    max_new_tokens: MostTokens = None,
    lora_scale: LoraScale = 1.0,
    batch_seconds: BatchSeconds = 480.0,
    batch_examples: BatchExamples = 16,
    out: Out = "",
    anew: Anew = False,
    workers: Processes = 0,
    address: Cluster = "",
) -> None:
    """Let a run answer every example of a stage, into a file a task. The same command goes on after a stop."""
    options = locals()
    from salmonn.evaluation import commands as evaluating

    request, where = evaluating.understand(options)
    evaluating.generate_answers(run, request, where)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="The folder of the run; none with --model or --answers.")] = "",
    data: Data = "",
    recipe: Mixture = "",
    stage: Stage = "evaluate",
    tasks: Tasks = "",
    limit: Limit = None,
    seed: Seed = 0,
    beams: Annotated[
        int | None,
        typer.Option(help="Width of the beam search, by default 4, of endpoints 1; 1 is greedy.", show_default=False),
    ] = None,
    max_new_tokens: MostTokens = None,
    lora_scale: LoraScale = 1.0,
    batch_seconds: BatchSeconds = 480.0,
    batch_examples: BatchExamples = 16,
    out: Out = "",
    anew: Anew = False,
    workers: Processes = 0,
    address: Cluster = "",
    at_steps: Annotated[
        str,
        typer.Option(help="Draw scores against steps: 100,200 or all that are kept (Figure 2).", show_default=False),
    ] = "",
    lora_scales: Annotated[
        str,
        typer.Option(help="Draw scores against LoRA's scaling alpha / r: FROM:TO:STEP (Figure 3).", show_default=False),
    ] = "",
    perplexity: Annotated[
        bool, typer.Option("--perplexity", help="Also of answers with and without instruction (Figure 4).")
    ] = False,
    json: Annotated[str, typer.Option(help="Write the scores, or the figures' numbers, to this file.")] = "",
    html: Annotated[str, typer.Option(help="Write a page to this file.")] = "",
    judge: JudgeUrl = "",
    judge_model: JudgeModel = "",
    model: Annotated[str, typer.Option(help="Another model instead of a run: openai:NAME, or hf:FOLDER.")] = "",
    url: Annotated[str, typer.Option(help="Of openai: models, the endpoint. SALMONN_API_KEY holds the token.")] = "",
    answers: Annotated[str, typer.Option(help="Answers of anyone: JSON lines or CSV with key and answer.")] = "",
) -> None:
    """Answer every example of a stage and score the answers beside the paper's numbers; or draw the paper's figures."""
    options = locals() | {"beams": beams if beams is not None else 1 if model.startswith("openai:") else 4}
    from salmonn.evaluation import commands as evaluating

    request, where = evaluating.understand(options)
    if model or answers:
        from salmonn.evaluation import foreign_commands

        foreign_commands.evaluate(options, request, where)
        return
    told = {"json": json, "html": html, "judge": judge, "judge_model": judge_model}
    if at_steps or lora_scales or perplexity:
        evaluating.figures(run, request, where, steps=at_steps, scales=lora_scales, perplexity=perplexity, **told)
    else:
        evaluating.evaluate(run, request, where, **told)


@app.command()
def score(
    answers: Annotated[str, typer.Argument(help="A JSONL file of answers, or a folder of such files.")],
    json: Annotated[str, typer.Option(help="Write the scores to this file.")] = "",
    html: Annotated[str, typer.Option(help="Write a page to this file.")] = "",
    judge: Annotated[str, typer.Option(help="Address of an OpenAI-compatible endpoint that judges free answers.")] = "",
    judge_model: Annotated[str, typer.Option(help="The name that the endpoint knows its model by.")] = "",
) -> None:
    """Score answers, ours or anyone's, beside the paper's numbers. Needs no model and no dataset."""
    from salmonn.scoring import commands as scoring

    scoring.score(answers, json, html, judge, judge_model)


@app.command()
def export_eval(
    dataset: Annotated[str, typer.Argument(help="The folder of the dataset.")],
    to: Annotated[str, typer.Option(help="Whose layout: lmms-eval or ultraeval-audio.")],
    out: Annotated[str, typer.Option(help="The folder to write; nothing may be there yet.")],
    recipe: RecipeName = "salmonn",
    stage: Stage = "evaluate",
    limit: Limit = None,
) -> None:
    """Write a stage's questions with their sounds in the layout that another evaluation harness reads."""
    from salmonn.evaluation.harness import command

    command(dataset, to, out, recipe, stage, limit)
