"""One command, ``asr``, with sub-commands. The only module that prints or parses arguments.

Heavy imports stay inside the commands, so that ``asr --help`` answers at once.
"""

from __future__ import annotations

import sys

import typer

from asr.exceptions import AsrError

app = typer.Typer(
    name="asr",
    help="Speech recognition: transcribe audio files, train on recipes, score word error rates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Speech recognition: transcribe audio files, train on recipes, score word error rates."""


def main() -> None:
    """Run the command line; a failure that a user can meet is one sentence on stderr and exit code 1."""
    try:
        app()
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
