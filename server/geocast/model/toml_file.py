"""Reads files of the configuration. Errors list all mistakes of a TOML file, in words, and repeat no value."""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from .errors import ConfigError, did_you_mean

_WHERE = re.compile(r"\((at [^()]*)\)$")  # the part of tomllib's messages that repeats nothing from the file
_WORDS = {
    "missing": "is needed",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt:,}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than": "must be less than {lt:,}",
    "less_than_equal": "must be at most {le:,}",
    "string_too_short": "must have at least {min_length:,} characters",
    "string_too_long": "must have at most {max_length:,} characters",
    "too_short": "must have at least {min_length:,} of them",
    "too_long": "must have at most {max_length:,} of them",
    "value_error": "{error}",
}


class TomlTable(BaseModel):
    """A table of a TOML file, with the keys that it may have. No value is converted to another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def of_file(cls, data: bytes, file: str, context: object = None) -> Self:
        """Return the content of a whole TOML file. `context` is passed to the validators.

        Raise ConfigError if it is invalid, with one line for each mistake. Each line begins with `file`.
        """
        document = parse_toml(data, file)
        try:
            return cls.model_validate(document, context=context)
        except ValidationError as error:
            raise ConfigError(*listed(file, mistakes(error, cls, document))) from None


def read_file(option: str, path: Path) -> bytes:
    """Return the content of a file. Raise ConfigError, which names the option and the file, if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def parse_toml(data: bytes, file: str) -> dict[str, Any]:
    """Return the content of a TOML file. Raise ConfigError, which begins with `file`, if it is not TOML."""
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        at = _WHERE.search(str(error))
        raise ConfigError(f"{file}: not TOML{f': {at[1]}' if at else ''}") from None


def matching(form: re.Pattern[str], expected: str) -> AfterValidator:
    """Return a check that a text as a whole matches a regular expression. If not, the error says `expected`."""

    def check(text: str) -> str:
        if form.fullmatch(text) is None:
            raise ValueError(expected)
        return text

    return AfterValidator(check)


def mistakes(
    error: ValidationError, model: type[BaseModel], table: object, also: Collection[str] = ()
) -> dict[str, str]:
    """Return what is wrong with each key of a table, as a dict from the path of the key to the reason.

    `table` is what `model` has refused, and `also` has keys that may stand beside those of the model. Unknown keys come
    first: a misspelt key often also causes an error about a missing one. A table whose name is refused is called by its
    number.
    """
    found = error.errors(include_url=False, include_input=False)
    found.sort(key=lambda each: each["type"] != "extra_forbidden")
    refused = {each["loc"][:-1] for each in found if each["loc"][-1:] == ("[key]",)}
    told: dict[str, str] = {}
    for each in found:
        *parents, last = each["loc"] or ("",)
        if last == "[key]":
            path, why = _path(each["loc"][:-1], refused, table), f"its name {_why(each)}"
        else:
            path, why = _path(each["loc"], refused, table), _why(each)
        if each["type"] == "extra_forbidden":
            known = _model_at(model, parents).model_fields
            why = f"is not a known key{did_you_mean(str(last), [*known, *(() if parents else also)])}"
        told.setdefault(path, why)
    return told


def listed(file: str, found: Mapping[str, str]) -> list[str]:
    """Return the result of `mistakes` as lines of text that begin with the name of the file."""
    return [f"{file}: {f'{path}: ' if path else ''}{line}" for path, why in found.items() for line in why.split("\n")]


def _why(each: Any) -> str:
    words = _WORDS.get(each["type"])
    return str(each["msg"]) if words is None else words.format(**each.get("ctx", {}))


def _path(loc: Sequence[int | str], refused: Collection[Any], table: Any) -> str:
    """Return the path of a key. `refused` are the paths of tables whose names may not be repeated."""
    path = ""
    for at, part in enumerate(loc):
        if tuple(loc[: at + 1]) in refused:
            path += f": entry {list(table).index(part) + 1}"
        else:
            path += f".{part}" if path else str(part)
        table = table[part] if isinstance(table, dict) and part in table else {}
    return path


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model of the table at a path in a file."""
    for part in path:
        field = model.model_fields.get(str(part))
        model = (field and _model_in(field.annotation)) or model
    return model


def _model_in(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((model for part in get_args(kind) if (model := _model_in(part)) is not None), None)
