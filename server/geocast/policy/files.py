"""From the text of a policy to the policy: a file's, or that of one of the built-in ones."""

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, did_you_mean
from .calls import CallCategory
from .cap import Cap, CapTexts
from .category import Category
from .rules import Policy

PREFIX = "builtin:"  # how a built-in policy is named where else the path of a file is
BUILT_IN = ("neighbourhood", "public-warning")  # the first is what is in force where nothing is said
DEFAULTS = "defaults"
OF_ONE = ("title", "cap")  # keys of a category that others can't share
# The tables of a policy by how their keys begin, to say which key was meant by one that is not known.
_TABLES: Mapping[tuple[str, ...], type[BaseModel]] = {
    ("categories",): Category,
    ("calls",): CallCategory,
    (DEFAULTS,): Category,
    ("cap", "texts"): CapTexts,
    ("cap",): Cap,
    (): Policy,
}


def load(path: Path | None) -> Policy:
    """The policy in the TOML file at `path`, or a built-in one: `builtin:NAME`, and `neighbourhood` for None.

    Raises ConfigError, in one line that names the file and the first thing wrong with it.
    """
    return parse(read(path), path)


def read(path: Path | None) -> bytes | None:
    """The text of the policy at `path`; None for None. Raises ConfigError."""
    if path is None:
        return None
    if str(path).startswith(PREFIX):
        return _built_in(str(path).removeprefix(PREFIX))
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"policy {path}: {error.strerror}") from None


def parse(data: bytes | None, path: Path | None) -> Policy:
    """The policy in the text that was read at `path`, None being the first built-in one. Raises ConfigError."""
    try:
        document = tomllib.loads((_built_in(BUILT_IN[0]) if data is None else data).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"policy {path}: not TOML: {error}") from None
    wrong = [*_wrong_defaults(document.get(DEFAULTS, {}))]
    try:
        policy = Policy.model_validate(_with_defaults(document, {} if wrong else document.get(DEFAULTS, {})))
    except ValidationError as error:
        wrong += error.errors(include_url=False)
    if wrong:
        # A key that is not known comes first: that another one is missing may follow from it.
        wrong.sort(key=lambda each: each["type"] != "extra_forbidden")
        raise ConfigError(*(f"policy {path}: {_problem(each)}" for each in wrong))
    return policy


def _built_in(name: str) -> bytes:
    if name not in BUILT_IN:
        raise ConfigError(f"policy {PREFIX}{name}: is not built in; {' and '.join(BUILT_IN)} are")
    return resources.files("geocast").joinpath("policy", "builtin", f"{name}.toml").read_bytes()


# ---- [defaults] (P16) ----------------------------------------------------------------------------------------------


def _with_defaults(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The policy with these keys in each category that doesn't have them."""
    whole = {key: value for key, value in document.items() if key != DEFAULTS}
    categories = whole.get("categories")
    if isinstance(categories, dict):
        whole["categories"] = {k: {**defaults, **v} if isinstance(v, dict) else v for k, v in categories.items()}
    return whole


def _wrong_defaults(defaults: Any) -> Iterator[Any]:
    """What is wrong with them by themselves. Whether they go together is seen with each category."""
    if isinstance(defaults, dict):
        for key in OF_ONE:
            if key in defaults:
                yield {"type": "of_one", "loc": (DEFAULTS, key), "msg": "belongs to one category alone"}
        defaults = {"title": "-"} | {key: value for key, value in defaults.items() if key not in OF_ONE}
    try:
        Category.model_validate(defaults)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            if each["loc"] or not isinstance(defaults, dict):
                yield each | {"loc": (DEFAULTS, *each["loc"])}


# ---- what is said --------------------------------------------------------------------------------------------------


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = next(model for begins, model in _TABLES.items() if error["loc"][: len(begins)] == begins)
        known = [*model.model_fields, *([DEFAULTS] if model is Policy else ())]
        return f"{where}: is no key of a policy{did_you_mean(str(error['loc'][-1]), known)}"
    return f"{where}: {error['msg']}" if where else str(error["msg"])
