"""The files of the integration, as Home Assistant (hassfest) and HACS demand them, without Home Assistant's core."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from client_demo.home_assistant.build import build
from client_demo.python import Kind

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "client_demo" / "home_assistant"
FOLDER = SOURCE / "custom_components" / "geocast"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
ENGLISH = json.loads((FOLDER / "translations" / "en.json").read_text("utf-8"))
TEXTS = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.py")}
PLATFORMS = ("binary_sensor", "button", "event", "sensor")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that users install, and its zip."""
    folder = tmp_path_factory.mktemp("built") / "home-assistant"
    return folder, build(folder)


def imported(text):
    """Return the modules that a text imports absolutely."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_manifest_has_the_keys_that_hassfest_and_hacs_demand():
    """The keys are in the order of hassfest: domain, name, then by alphabet."""
    rest = ["codeowners", "config_flow", "documentation", "integration_type", "iot_class", "issue_tracker"]
    assert list(MANIFEST) == ["domain", "name", *rest, "loggers", "requirements", "version"]
    assert MANIFEST["domain"] == FOLDER.name
    assert (MANIFEST["integration_type"], MANIFEST["iot_class"]) == ("service", "cloud_push")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    assert MANIFEST["issue_tracker"] == project["Issues"]
    page = MANIFEST["documentation"].removeprefix(project["Source"] + "/blob/main/")
    assert (ROOT / page).is_file()
    assert json.loads((SOURCE / "hacs.json").read_text("utf-8")).keys() == {"name", "homeassistant"}
    assert (FOLDER / "brand" / "icon.png").read_bytes()[16:24] == bytes([0, 0, 1, 0]) * 2, "256 pixels wide and high"


def test_oldest_required_websockets_is_the_one_in_the_tests_of_the_core():
    """So it is known to suffice."""
    [requirement] = MANIFEST["requirements"]
    locked = (ROOT / "requirements" / "home-assistant.txt").read_text("utf-8")
    assert f"\n{requirement.replace('>=', '==')} \\\n" in locked


def test_integration_imports_only_public_modules_of_what_it_requires():
    """aiohttp and voluptuous are parts of the core."""
    names = {name for text in TEXTS.values() for name in imported(text)}
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert packages == {"aiohttp", "homeassistant", "voluptuous"}
    assert not [name for name in names if re.search(r"\._", name)]


def test_client_in_the_integration_imports_no_package_that_home_assistant_lacks(built):
    """Home Assistant has httpx and the required websockets. A package with None in `sys.modules` can't be imported."""
    folder, _ = built
    program = (
        "import sys; sys.modules |= dict.fromkeys(['cryptography', 'h3', 'msgpack', 'geocast', 'client_demo']); "
        "import client; client.Client('ws://127.0.0.1', [client.Place.at(1, 2)])"
    )
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=folder / "custom_components" / "geocast", check=True)


def test_built_folder_and_its_zip_are_complete(built):
    """The folder has the layout of a repository for HACS. The zip is unpacked in the configuration folder."""
    folder, archive = built
    names = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    ours = {path.relative_to(SOURCE).as_posix() for path in FOLDER.rglob("*") if "__pycache__" not in path.parts}
    assert {name for name in ours if "." in name} | {"hacs.json", "README.md", "LICENSE"} <= names
    for path in (ROOT / "client_demo" / "python").glob("*.py"):
        assert (folder / "custom_components" / "geocast" / "client" / path.name).read_bytes() == path.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        files = {name for name in zipped.namelist() if not name.endswith("/")}
    assert files == {name for name in names if name.startswith("custom_components/")}


def test_translations_have_each_step_error_and_exception_of_the_code():
    """The fields of the steps are compared in the core."""
    steps = set(re.findall(r"def async_step_(\w+)", TEXTS["config_flow"])) - {"reauth"}
    assert ENGLISH["config"]["step"].keys() == steps
    for step in ENGLISH["config"]["step"].values():
        assert step["data"].keys() == step["data_description"].keys()
    errors = set(re.findall(r'"(cannot_\w+|invalid_\w+|two_\w+)"', TEXTS["config_flow"] + TEXTS["watch"]))
    assert ENGLISH["config"]["error"].keys() == errors
    raised = set(re.findall(r'translation_key="(\w+)"', TEXTS["button"]))
    assert ENGLISH["exceptions"].keys() == raised


@pytest.mark.parametrize("platform", PLATFORMS)
def test_translations_and_icons_have_exactly_the_entities_of_the_code(platform):
    """An entity without an icon of its own has that of its device class."""
    keys = set(re.findall(r'\(entry, "(\w+)"\)', TEXTS[platform]))
    assert ENGLISH["entity"][platform].keys() == keys
    icons = json.loads((FOLDER / "icons.json").read_text("utf-8"))["entity"]
    assert icons.keys() == set(PLATFORMS) - {"binary_sensor"}
    if platform in icons:
        assert icons[platform].keys() == keys


def test_translations_name_each_kind_of_change():
    """The event entity fires for each kind of the client library."""
    states = ENGLISH["entity"]["event"]["changes"]["state_attributes"]["event_type"]["state"]
    assert list(states) == [kind.value for kind in Kind]
