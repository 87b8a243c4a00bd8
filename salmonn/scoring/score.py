"""A score: one number over a whole set of answers, how sure it is, and how it was counted."""

from __future__ import annotations

import msgspec


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number over a whole set, in the unit of the library that counts it."""

    name: str
    value: float | None
    """None if it could not be counted here; `note` says why. Never a number that was not counted."""
    low: float | None = None
    """Of the 95 % interval of the bootstrap over answers; None for fewer than two answers."""
    high: float | None = None
    count: int
    """Answers it is over: all of them but those that `details` names as dropped."""
    scale: float = 1.0
    """Times this it is shown, as the paper shows it: a rate in per cent, an accuracy as it is."""
    digits: int = 2
    """Behind the point where it is shown."""
    lower_is_better: bool = False
    details: dict[str, float | str] = {}
    """What the value is made of; texts among them say how: normaliser, tokenizer, library, judge."""
    note: str = ""
    also: tuple[Score, ...] = ()
    """Other numbers over the same answers, as the following rate beside an accuracy."""

    def parts(self) -> tuple[Score, ...]:
        """Return this number and those beside it."""
        return (self, *self.also)

    def shown(self, value: float | None) -> str:
        """Return a value as people read it, ``-`` if there is none."""
        return "-" if value is None else f"{value * self.scale:.{self.digits}f}"

    def text(self) -> str:
        """Return the value as people read it."""
        return self.shown(self.value)

    def interval(self) -> str:
        """Return the interval as people read it: ``1.9 to 2.4``."""
        return "-" if self.low is None else f"{self.shown(self.low)} to {self.shown(self.high)}"
