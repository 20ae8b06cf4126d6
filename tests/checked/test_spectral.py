"""Spectral lints the OpenAPI and the AsyncAPI document with its own rules."""

import json

import pytest
from checked.tool import NODE_MODULES, Tool, node_js, run

pytestmark = pytest.mark.checked
TOOL = Tool("spectral", "the OpenAPI and the AsyncAPI document", npm=("@stoplight/spectral-cli",))
EXPLAINED = {
    "info-contact": "the contact for a node is its operator, whom the document does not know",
    "operation-description": "an operation has a summary; docs/protocol.md has the rest",
    "asyncapi-info-contact": "as in the OpenAPI document",
    "asyncapi-3-operation-description": "an operation has one message, which has a description",
    "asyncapi-3-tags": "the stream has one subject",
    "asyncapi-latest-version": "more tools read 3.0.0",
}
COMMAND = NODE_MODULES / "@stoplight" / "spectral-cli" / "dist" / "index.js"


@pytest.fixture(scope="module")
def served(node):
    """Return the documents that a node serves, by the set of rules for each."""
    return {"oas": node.api.get("/openapi.json").text, "asyncapi": node.api.get("/v1/asyncapi.json").text}


def complaints(rules, text, folder):
    """Return the codes of Spectral's complaints about a document, with the places in it."""
    ruleset, file = folder / "rules.json", folder / "document.json"
    ruleset.write_text(json.dumps({"extends": [[f"spectral:{rules}", "recommended"]]}), "utf-8")
    file.write_text(text, "utf-8")
    command = [node_js(), COMMAND, "lint", "--quiet", "--format", "json", "--ruleset", ruleset, file]
    found = json.loads(run(*command, ok=(0, 1), cwd=folder))
    return [(each["code"], "/".join(map(str, each["path"]))) for each in found]


@pytest.mark.parametrize("rules", ["oas", "asyncapi"])
def test_document_has_no_unexplained_complaint(served, tmp_path, rules, record_property):
    """Each part that a rule looks at is not counted; each operation is."""
    found = complaints(rules, served[rules], tmp_path)
    assert [each for each in found if each[0] not in EXPLAINED] == []
    document = json.loads(served[rules])
    record_property("cases", len(document.get("operations") or document["paths"]))


def test_broken_documents_are_found(served, tmp_path, record_property):
    """Otherwise the tests above could not fail."""
    openapi, asyncapi = json.loads(served["oas"]), json.loads(served["asyncapi"])
    del openapi["info"]["title"]
    openapi["paths"]["/v1/alerts"]["get"]["operationId"] = openapi["paths"]["/v1/policy"]["get"]["operationId"]
    asyncapi["operations"]["hello"]["messages"] = [{"$ref": "#/channels/stream/messages/nothing"}]
    found = {code for code, _ in complaints("oas", json.dumps(openapi), tmp_path)}
    assert {"oas3-schema", "operation-operationId-unique"} <= found
    assert "invalid-ref" in {code for code, _ in complaints("asyncapi", json.dumps(asyncapi), tmp_path)}
    record_property("cases", 3)
