"""What stands on the axis of a figure, as the command line says it: steps of a run, scalings of LoRA."""

from __future__ import annotations

from manifests.errors import UserError

MOST_POINTS = 200
"""More is a slip of the finger: each is an evaluation of its own."""


def read_steps(text: str) -> list[int] | None:
    """Return the steps that ``100,200`` or ``all`` stands for, None for all; UserError if it is neither."""
    if text.strip() == "all":
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--at-steps is {text!r}; it can be steps with commas between, as 100,200, or all")
    return [int(part) for part in parts]


def read_scalings(text: str) -> list[float]:
    """Return the scalings that ``FROM:TO:STEP`` or ``0,2,4`` stands for; UserError if it is neither."""
    wrong = UserError(
        f"--lora-scales is {text!r}; it can be FROM:TO:STEP, as 0:4:0.5, or numbers with commas between, none below 0 "
        f"and at most {MOST_POINTS}"
    )
    try:
        if ":" not in text:
            found = [float(part) for part in text.split(",")]
        else:
            first, last, step = (float(part) for part in text.split(":"))
            if not (step > 0 and 0 <= (last - first) / step < MOST_POINTS):
                raise wrong
            # The last one is meant, although 0.1 ten times is less than 1.
            found = [round(first + number * step, 9) for number in range(int((last - first) / step + 1e-6) + 1)]
    except (ValueError, ZeroDivisionError):
        raise wrong from None
    if not all(0 <= value < float("inf") for value in found):
        raise wrong
    return found
