"""The reference parser of AsyncAPI reads the document of the stream."""

import json

from checked.tool import HERE, Tool, node_js, run
from support.schemas import ASYNCAPI

TOOL = Tool("@asyncapi/parser", "the AsyncAPI document", npm=("@asyncapi/parser",))
EXPLAINED = {"asyncapi-latest-version": "more tools read 3.0.0"}
PARSE = """\
import {readFileSync} from 'node:fs'
import {Parser} from '@asyncapi/parser'
const parser = new Parser()
const outcomes = []
for (const text of JSON.parse(readFileSync(0, 'utf-8'))) {
  const {document, diagnostics} = await parser.parse(text)
  outcomes.push({
    codes: diagnostics.map((each) => each.code),
    messages: document?.allMessages().all().map((each) => each.id()) ?? [],
    operations: document?.operations().all().map((each) => each.id()) ?? [],
  })
}
console.log(JSON.stringify(outcomes))
"""


def broken(change):
    """Return the text of the document after a change."""
    document = json.loads(ASYNCAPI.read_text("utf-8"))
    change(document)
    return json.dumps(document)


def test_document_is_read_completely_and_broken_ones_are_refused(record_property):
    """The parser finds each message and each operation, and complains about nothing else than what is explained."""
    whole = json.loads(ASYNCAPI.read_text("utf-8"))
    texts = [
        json.dumps(whole),
        broken(lambda document: document["operations"]["hello"].pop("action")),
        broken(lambda document: document["operations"]["hello"]["messages"][0].update({"$ref": "#/nothing"})),
        broken(lambda document: document["info"].pop("title")),
    ]
    said = run(node_js(), "--input-type=module", "--eval", PARSE, input=json.dumps(texts), cwd=HERE)
    read, *refused = json.loads(said)
    assert set(read["codes"]) <= set(EXPLAINED)
    assert sorted(read["operations"]) == sorted(whole["operations"])
    assert set(whole["components"]["messages"]) <= set(read["messages"])
    assert all(set(each["codes"]) - set(EXPLAINED) for each in refused), refused
    record_property("cases", len(read["messages"]) + len(read["operations"]) + len(refused))
