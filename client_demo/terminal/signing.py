"""The signing of requests in `publish`, `revise` and `cancel`: a dry run returns a form, which reviewers then sign."""

import json
from pathlib import Path
from typing import Any

import click

from client_demo.python.times import format_time, wall_ms

from .command import WRONG_INPUT, Command, fail


def signing_options(command: Command) -> Command:
    """Add the options for the approval: a reviewer's name, or a form with signatures."""
    options = [
        click.option(
            "--reviewer",
            default="desk-1",
            envvar="GEOCAST_REVIEWER",
            show_envvar=True,
            help="The name of the person who decided this, if no signatures are needed.",
        ),
        click.option(
            "--form",
            "form_path",
            type=click.Path(path_type=Path),
            help="Without --signature: only send a dry run, and write the text to sign into this new file.",
        ),
        click.option(
            "--signature",
            "signature_paths",
            type=click.Path(path_type=Path),
            multiple=True,
            help="A signature that `geocast approve` printed for the form of --form; one for each reviewer.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Signing:
    """The current step of a request that reviewers sign (docs/reference/approval-rules.md).

    `only_asks` means that only a dry run is sent, and that the form in its answer is written to a file. The program
    exits if a file can't be used.
    """

    def __init__(self, reviewer: str, form_path: Path | None, signature_paths: tuple[Path, ...]) -> None:
        if signature_paths and form_path is None:
            raise click.UsageError("--signature goes with --form")
        self._path = form_path
        self.only_asks = form_path is not None and not signature_paths
        self.approval: dict[str, Any] = {"approval": {"reviewer": reviewer, "approved_at": format_time(wall_ms())}}
        self._form: dict[str, Any] = {}
        if form_path is not None:
            self.approval = self._signed(form_path, signature_paths) if signature_paths else {}
            if self.only_asks and form_path.exists():
                fail(f"{form_path} exists: give the signatures of it by --signature, or another file", WRONG_INPUT)

    def _signed(self, form_path: Path, signature_paths: tuple[Path, ...]) -> dict[str, Any]:
        text, self._form = _read(form_path)
        signatures = [_read(path)[1] for path in signature_paths]
        return {"approval": {"form": text, "signatures": signatures}}

    def of_form(self, *names: str) -> dict[str, Any]:
        """Return the values of these fields in the signed form.

        Fields that the form lacks are left out; the result is empty if there is no form.
        """
        return {name: self._form[name] for name in names if name in self._form}

    def answered(self, answer: dict[str, Any]) -> None:
        """Print the answer of the server.

        After a dry run for a form, write the form to its file, and print how many people must sign it.
        """
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        if self._path is None or not self.only_asks:
            return
        if "form" not in answer:
            fail("the node's policy has no audience, so there is nothing to sign")
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(answer["form"])
        except OSError as error:
            fail(f"{self._path}: {error.strerror}", WRONG_INPUT)
        click.echo(f"{self._path}: {answer['approvals']} of the reviewers have to sign it", err=True)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a file, exactly as it is, and the JSON object that the text contains."""
    try:
        text = path.read_bytes().decode().rstrip("\r\n")
        members = json.loads(text)
    except OSError as error:
        fail(f"{path}: {error.strerror}", WRONG_INPUT)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        fail(f"{path}: expected a JSON object", WRONG_INPUT)
    return text, members
