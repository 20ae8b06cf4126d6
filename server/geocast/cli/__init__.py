"""The command line: one module for each command, whose `command` it is.

A mistake of the caller's ends with one line on standard error and exit status 2, never with a traceback.

To say the version, to help and to complete a word should take no longer than a key press. So a command imports what it
takes when it is run; `click` and what is light stand at the top.
"""

import re
import sys
from typing import NoReturn

import click

from .. import __version__
from ..errors import ConfigError
from . import approve, cap, check, health, keygen, ledger, push, serve, token


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geocast")
@click.pass_context
def cli(context: click.Context) -> None:
    """Geocast: a real-time geo alert fan-out server."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for each in (serve, check, health, keygen, token, approve, cap, ledger, push):
    cli.add_command(each.command)

# What nobody asked for may be a token, or a URL with a password: click repeats it, in brackets.
_EXTRA = re.compile(r"(unexpected extra arguments?) \(.*\)", re.DOTALL)


def main() -> NoReturn:
    """Run the command and exit: with 0; with 2 and one line for a mistake of the caller; with 130 if interrupted."""
    try:
        sys.exit(cli.main(prog_name="geocast", standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.UsageError as error:
        message = _EXTRA.sub(r"\1.", error.format_message())
        _fail(f"{message} {_hint(error)}")
    except click.ClickException as error:
        _fail(error.format_message())
    except (ConfigError, OSError) as error:
        _fail(str(error))


def _hint(error: click.UsageError) -> str:
    """Where there is help, as click says it when it is left to itself."""
    return f"Try '{error.ctx.command_path} --help' for help." if error.ctx else ""


def _fail(message: str) -> NoReturn:
    print(f"geocast: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
