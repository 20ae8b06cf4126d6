"""The command line of geocast. There is one module for each command, which defines the command as `command`.

If the caller makes a mistake, the program prints a line to standard error and exits with status 2, without a traceback.
If a file of the configuration has several mistakes, there is a line for each.

The version, the help and the completion of a word should appear as fast as a key press. So a command imports heavy
modules only when it runs; at the top of a module, only `click` and light modules are imported.
"""

import re
import sys
from typing import NoReturn

import click

from .. import __version__, commit
from ..model.errors import ConfigError
from . import approve, cap, check, fetch, health, keygen, ledger, listen, part, publish, push, relay, serve, tail, token


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        built_from = commit()
        click.echo(f"geocast, version {__version__}" + (f" (commit {built_from})" if built_from else ""))
        context.exit()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(context: click.Context) -> None:
    """Geocast: a real-time geo alert fan-out server."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for each in (serve, check, health, keygen, token, approve, cap, fetch, ledger, push, relay, tail, part, listen):
    cli.add_command(each.command)
for command in (publish.publish, publish.revise, publish.cancel):
    cli.add_command(command)

# Click's message repeats unexpected arguments in brackets. They may contain a token, or a URL with a password, so they
# are removed.
_EXTRA = re.compile(r"(unexpected extra arguments?) \(.*\)", re.DOTALL)


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its status.

    The status is 2 after a usage or configuration error, and 130 if the command was interrupted.
    """
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
    except ConfigError as error:
        _fail(*error.problems)
    except OSError as error:
        _fail(str(error))


def _hint(error: click.UsageError) -> str:
    """Return the sentence that names the command that prints help. It is the same as click's own sentence."""
    return f"Try '{error.ctx.command_path} --help' for help." if error.ctx else ""


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        print(f"geocast: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
