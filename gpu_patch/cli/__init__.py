"""The command line: look at files and patches, predict, see it work, time it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import gpu_patch
from gpu_patch.cli.arguments import Parser
from gpu_patch.cli.bench.command import add_to as add_bench
from gpu_patch.cli.delivery import UnreadError, delivered, is_of_stdout
from gpu_patch.cli.demo import add_to as add_demo
from gpu_patch.cli.encoding import any_encoding
from gpu_patch.cli.info import add_to as add_info
from gpu_patch.cli.messages import one_line, short_warnings
from gpu_patch.cli.predict.command import add_to as add_predict
from gpu_patch.cli.preview import add_to as add_preview
from gpu_patch.cli.termination import Terminated, terminable
from gpu_patch.cli.training.command import add_to as add_train_demo


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="gpu-patch",
        description="Training patches for microscopy deep learning. Start with: gpu-patch demo",
    )
    parser.add_argument("--version", action="version", version=f"gpu_patch {gpu_patch.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (add_demo, add_preview, add_info, add_predict, add_train_demo, add_bench):
        add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str or None, default None
        Without the program's name; None takes them from `sys.argv`.

    Returns
    -------
    int
        Exit status: 0, 2 after an error, which stands in one line on stderr, 130 after Ctrl-C,
        143 after SIGTERM, or 141 where nobody reads any more what is printed.
    """
    with any_encoding():
        return delivered(lambda: _run(make_parser(), arguments))


def _run(parser: Parser, arguments: Sequence[str] | None) -> int:
    names: dict[str, str] = {}
    try:
        options = parser.parse_args(arguments)
        if not hasattr(options, "run"):
            parser.print_help()
            return 0
        names = options.parser.options
        with terminable(), short_warnings(names):
            options.run(options)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, MemoryError) as error:
        if is_of_stdout(error):
            raise UnreadError from error
        print(f"gpu-patch: error: {one_line(error, names)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        by_signal = isinstance(stopped, Terminated)
        print(f"gpu-patch: {'terminated' if by_signal else 'interrupted'}", file=sys.stderr)
        return 143 if by_signal else 130
    return 0
