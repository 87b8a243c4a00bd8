"""The command export: a run's newest checkpoint in a form that other code reads."""

from __future__ import annotations

from pathlib import Path

from manifests import UserError
from manifests.console import console

FORMS = {
    "released": "a .pth file as the paper's code writes and reads it",
    "merged": "a Hugging Face folder of the language model with LoRA merged in",
    "adapter": "a peft adapter for the base language model",
}


def export(run: str, form: str, out: str) -> None:
    """Write the newest checkpoint of `run` as `form` to `out`, and say what was written."""
    if form not in FORMS:
        raise UserError(f"--to is {form!r}; it must be one of {', '.join(FORMS)}")
    if not (Path(run) / "config.json").is_file():
        raise UserError(f"there is no run in {run!r}; salmonn train makes one")
    if Path(out).exists():
        raise UserError(f"--out {out!r} is there already; name a place that is not")
    from salmonn.checkpoint import export_released
    from salmonn.merged import export_adapter, export_merged
    from salmonn.training.run import load_run

    _, model, step = load_run(run)
    if form == "released":
        export_released(model, out)
    elif form == "merged":
        export_merged(model, out)
    else:
        export_adapter(model, out)
    console.print(f"step {step} of {run} is now {FORMS[form]}: {out}")
