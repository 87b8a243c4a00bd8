"""`python -m salmonn` is the command `salmonn`, also where no script is installed."""

from __future__ import annotations

from salmonn.cli import main

main()
