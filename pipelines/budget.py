"""The budget of refusals: a rotten corpus stops the build before all of it is read."""

from __future__ import annotations

from collections.abc import Iterable

from manifests import TooManyRefusals, UserError
from pipelines.layout import Plan
from pipelines.pack import Commit

BUDGET = 0.05
GRACE = 10
"""So many clips may be refused before the budget counts: a share of a handful says nothing."""


class Allowance:
    """The budget of refusals: how many clips may have bad audio before the build stops."""

    def __init__(self, plan: Plan, budget: float, commits: Iterable[Commit] = ()) -> None:
        """Allow a share `budget` of all clips of `plan`, less what `commits` have used."""
        if not 0 <= budget <= 1:
            raise UserError(f"--budget is {budget}; it is a share of the clips, from 0 to 1")
        self.clips = sum(source.clips for source in plan.sources)
        self.most = max(GRACE, int(budget * self.clips))
        self.used = 0
        self.reasons: dict[str, int] = {}
        for commit in commits:
            self.spend(commit)

    def spend(self, commit: Commit) -> None:
        """Count the refusals of one shard; TooManyRefusals beyond the budget."""
        for refusal in commit.refusals:
            if refusal.verdict == "quarantined":
                self.used += 1
                self.reasons[refusal.reason] = self.reasons.get(refusal.reason, 0) + 1
        if self.used > self.most:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))
            raise TooManyRefusals(
                f"{self.used} of {self.clips} clips have bad audio ({reasons}), the budget is {self.most}; "
                "look into the input, or raise --budget and run again: what is packed stays"
            )
