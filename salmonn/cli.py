"""The command `salmonn`: the roof over the four packages. Each command imports what it needs when it is called."""

from __future__ import annotations

import errno
import sys

# Each registers its commands with the application, in the order in which help lists them.
from salmonn import cli_corpora, cli_datasets, cli_audit, cli_evaluate, cli_use  # isort: skip
from salmonn.cli_options import app

__all__ = ["app", "cli_audit", "cli_corpora", "cli_datasets", "cli_evaluate", "cli_use", "explain", "main"]


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        code, sentence = explain(error)
        if code is None:
            raise
        print(f"salmonn: {sentence}", file=sys.stderr)
        sys.exit(code)


def explain(error: Exception) -> tuple[int | None, str]:
    """Return the exit code and the sentence for an error; no code for one that is ours to mend."""
    from manifests.errors import Failed, TooManyRefusals, UserError

    for kind, code in ((UserError, 2), (TooManyRefusals, 3), (Failed, 1)):
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = f" at {error.filename}" if error.filename else ""
        return (
            2,
            f"{error.strerror}{where}; nothing is lost, make room or choose another place and run the command again",
        )
    return None, ""


if __name__ == "__main__":
    main()
