"""Reads a policy: from a TOML file, or one of the built-in policies."""

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..model.errors import ConfigError, did_you_mean
from .calls import CallCategory
from .cap import Cap, CapTexts
from .category import Category
from .own_test import OwnTestText
from .rules import Policy

PREFIX = "builtin:"  # begins the name of a built-in policy, which may be given instead of a path
BUILT_IN = ("neighbourhood", "public-warning")  # the first one is the default
DEFAULTS = "defaults"
OF_ONE = ("title", "cap")  # keys that must differ between categories, so they can't be in [defaults]
# Maps the beginning of a key's path to the table of the policy that has such keys. It is used to suggest the right key
# if an unknown one is given.
_TABLES: Mapping[tuple[str, ...], type[BaseModel]] = {
    ("categories",): Category,
    ("calls",): CallCategory,
    (DEFAULTS,): Category,
    ("cap", "texts"): CapTexts,
    ("cap",): Cap,
    ("test",): OwnTestText,
    (): Policy,
}


def load(path: Path | None) -> Policy:
    """Return the policy at `path`, which is the path of a TOML file, or `builtin:NAME` for a built-in policy.

    If `path` is None, return the built-in policy `neighbourhood`. Raise ConfigError if the file can't be read or is
    invalid. Its `problems` have one line for each mistake.
    """
    return parse(read(path), path)


def read(path: Path | None) -> bytes | None:
    """Return the bytes of the policy file at `path`, or None if `path` is None.

    If `path` is `builtin:NAME`, return those of the file of this built-in policy. Raise ConfigError if the file can't
    be read.
    """
    if path is None:
        return None
    if str(path).startswith(PREFIX):
        return _built_in(str(path).removeprefix(PREFIX))
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"policy {path}: {error.strerror}") from None


def parse(data: bytes | None, path: Path | None) -> Policy:
    """Return the policy that `data`, a result of `read`, describes. Raise ConfigError if it is invalid.

    If `data` is None, return the built-in policy `neighbourhood`. `path` is only used in error messages.
    """
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
        # Unknown keys come first: a misspelt key often also causes an error about a missing one.
        wrong.sort(key=lambda each: each["type"] != "extra_forbidden")
        raise ConfigError(*(f"policy {path}: {_problem(each)}" for each in wrong))
    return policy


def _built_in(name: str) -> bytes:
    if name not in BUILT_IN:
        raise ConfigError(f"policy {PREFIX}{name}: is not a built-in policy; {' and '.join(BUILT_IN)} are")
    return resources.files("geocast").joinpath("policy", "builtin", f"{name}.toml").read_bytes()


# ---- the table [defaults] (P16) ------------------------------------------------------------------------------------


def _with_defaults(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parsed policy after adding each key in `defaults` to those categories that lack it."""
    whole = {key: value for key, value in document.items() if key != DEFAULTS}
    categories = whole.get("categories")
    if isinstance(categories, dict):
        whole["categories"] = {k: {**defaults, **v} if isinstance(v, dict) else v for k, v in categories.items()}
    return whole


def _wrong_defaults(defaults: Any) -> Iterator[Any]:
    """Yield the errors in a policy's `[defaults]`, each about a single key.

    Combinations of keys are checked later, in each category.
    """
    if isinstance(defaults, dict):
        for key in OF_ONE:
            if key in defaults:
                yield {"type": "of_one", "loc": (DEFAULTS, key), "msg": "must not be shared by all categories"}
        defaults = {"title": "-"} | {key: value for key, value in defaults.items() if key not in OF_ONE}
    try:
        Category.model_validate(defaults)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            if each["loc"] or not isinstance(defaults, dict):
                yield each | {"loc": (DEFAULTS, *each["loc"])}


# ---- error texts ---------------------------------------------------------------------------------------------------


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = next(model for begins, model in _TABLES.items() if error["loc"][: len(begins)] == begins)
        known = [*model.model_fields, *([DEFAULTS] if model is Policy else ())]
        return f"{where}: is not a key of a policy{did_you_mean(str(error['loc'][-1]), known)}"
    return f"{where}: {error['msg']}" if where else str(error["msg"])
