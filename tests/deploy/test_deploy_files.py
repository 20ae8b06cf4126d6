"""The files that operators copy: compose.yaml, and the units of docs/deploy with their settings."""

import re
from pathlib import Path

import pytest
import yaml

from geocast.cli import cli

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
READERS = ("push", "relay", "ledger")
ONCE = {"secrets", "first-alert"}  # the services that end by themselves


def test_composed_service_that_died_is_started_again():
    """That is so for each service that does not end by itself."""
    assert {name for name, each in SERVICES.items() if each.get("restart") != "unless-stopped"} == ONCE


def test_composed_processes_that_read_the_log_have_the_policy_of_the_node():
    """The policy decides which entries are trusted, so all of them have to have the same one."""
    policy = SERVICES["node"]["environment"]["GEOCAST_POLICY"]
    assert {SERVICES[name]["environment"].get("GEOCAST_POLICY") for name in ("push", "relay")} == {policy}


@pytest.mark.parametrize("command", READERS)
def test_reader_of_log_comes_up_by_itself_however_late_a_node_makes_the_log(command):
    """While there is no log, it exits with status 2, and is started again."""
    [unit] = [each for each in UNITS if f"/geocast {command} " in each.read_text("utf-8")]
    settings = dict(line.split("=", 1) for line in unit.read_text("utf-8").splitlines() if re.match(r"[A-Z]\w+=", line))
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert "RestartPreventExitStatus" not in settings
    for manifest in (DEPLOY / "kubernetes" / command).glob("*.yaml"):
        for document in filter(None, yaml.safe_load_all(manifest.read_text("utf-8"))):
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            assert pod.get("restartPolicy", "Always") == "Always"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_file_of_settings_that_a_unit_names_is_there_and_has_settings_of_its_command(unit):
    """A variable that the command does not know would be ignored, or stop the start."""
    text = unit.read_text("utf-8")
    files = re.findall(r"^EnvironmentFile=/etc/geocast/(.+)$", text, re.MULTILINE)
    [words] = re.findall(r"^ExecStart=/opt/geocast/bin/geocast (.+)$", text, re.MULTILINE)
    command = cli.commands[words.split()[0]]
    command = command.commands[words.split()[1]] if hasattr(command, "commands") else command
    known = {option.envvar for option in command.params}
    own = DEPLOY / files[-1]
    assert files
    assert set(re.findall(r"^(GEOCAST_\w+)=", own.read_text("utf-8"), re.MULTILINE)) <= known
