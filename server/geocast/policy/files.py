"""Reads a policy: from a TOML file, or one of the built-in policies."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..model.errors import ConfigError
from ..model.toml_file import listed, mistakes, parse_toml, read_file
from .category import Category
from .rules import Policy

PREFIX = "builtin:"  # begins the name of a built-in policy, which may be given instead of a path
BUILT_IN = ("neighbourhood", "public-warning")  # the first one is the default
DEFAULTS = "defaults"
OF_ONE = ("title", "cap")  # keys that must differ between categories, so they can't be in [defaults]


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
    return read_file("policy", path)


def parse(data: bytes | None, path: Path | None) -> Policy:
    """Return the policy that `data`, a result of `read`, describes. Raise ConfigError if it is invalid.

    If `data` is None, return the built-in policy `neighbourhood`. `path` is only used in error messages.
    """
    document = parse_toml(_built_in(BUILT_IN[0]) if data is None else data, f"policy {path}")
    wrong = _wrong_defaults(document.get(DEFAULTS, {}))
    whole = _with_defaults(document, {} if wrong else document.get(DEFAULTS, {}))
    try:
        policy = Policy.model_validate(whole)
    except ValidationError as error:
        wrong |= mistakes(error, Policy, whole, [DEFAULTS])
    if wrong:
        raise ConfigError(*listed(f"policy {path}", wrong))
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


def _wrong_defaults(defaults: Any) -> dict[str, str]:
    """Return what is wrong with the keys of a policy's `[defaults]`, each by itself.

    Combinations of keys are checked later, in each category.
    """
    if not isinstance(defaults, dict):
        return {DEFAULTS: "must be a table"}
    wrong = {key: "must not be shared by all categories" for key in OF_ONE if key in defaults}
    alone = {"title": "-"} | {key: value for key, value in defaults.items() if key not in OF_ONE}
    try:
        Category.model_validate(alone)
    except ValidationError as error:
        wrong |= mistakes(error, Category, alone)
    return {f"{DEFAULTS}.{key}": why for key, why in wrong.items() if key}
