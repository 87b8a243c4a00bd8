"""What the commands share: the application they are registered with, and options that mean the same everywhere."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import typer
import typer.core


class Interruptible(typer.core.TyperGroup):
    """Says what to do after Ctrl-C, of which typer would say nothing."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # An impatient second one would only cut the cleaning up short.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("salmonn: stopped; nothing is lost, run the same command again to go on", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="salmonn",
    cls=Interruptible,
    help="Build SALMONN's instruction shards from public corpora, stream them, train on them, audit them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Root = Annotated[
    str, typer.Option(help="The folder of the corpora: raw/<corpus>/ as published.", envvar="SALMONN_ROOT")
]
Workers = Annotated[int | None, typer.Option(help="Processes at a time; by default one a core.", show_default=False)]
Address = Annotated[str, typer.Option(help="The Ray cluster: local, auto, HOST:PORT, or ray://HOST:PORT.")]
HeadStart = Annotated[
    float, typer.Option(help="Seconds of work on this machine before Ray is started for the rest; 0: at once.")
]
RecipeName = Annotated[str, typer.Option("--recipe", help="A recipe's name, or the path of its TOML file.")]
Stage = Annotated[str, typer.Option(help="Which stage of the recipe.")]
ModelConfig = Annotated[
    str, typer.Option("--config", help="For a released .pth: the preset or the TOML file of its model.")
]
