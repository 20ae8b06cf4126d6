"""Mapbox's linter reads the GeoJSON of the feed (RFC 7946)."""

import json

from checked.tool import HERE, Tool, node_js, run

TOOL = Tool("geojsonhint", "the GeoJSON feed", npm=("@mapbox/geojsonhint",))
HINTS = """\
import {readFileSync} from 'node:fs'
import geojsonhint from '@mapbox/geojsonhint'
const documents = JSON.parse(readFileSync(0, 'utf-8'))
console.log(JSON.stringify(documents.map((text) => geojsonhint.hint(text).map((each) => each.message))))
"""


def hints(*texts):
    """Return the messages about each of these documents."""
    said = run(node_js(), "--input-type=module", "--eval", HINTS, input=json.dumps(texts), cwd=HERE)
    return json.loads(said)


def test_feed_has_no_hint(documents, record_property):
    """Rings are closed and run counter-clockwise, at the poles and the antimeridian too (rule PF4)."""
    [found] = hints(documents["geojson"])
    assert found == []
    record_property("cases", len(json.loads(documents["geojson"])["features"]))


def test_broken_documents_are_found(documents, record_property):
    """Otherwise the test above could not fail."""
    clockwise, open_ring, nameless = (json.loads(documents["geojson"]) for _ in range(3))
    for feature in clockwise["features"]:
        shape = feature["geometry"]
        for rings in shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]:
            rings[0].reverse()
    for feature in open_ring["features"]:
        shape = feature["geometry"]
        (shape["coordinates"][0] if shape["type"] == "Polygon" else shape["coordinates"][0][0]).pop()
    del nameless["features"][0]["type"]
    found = hints(*map(json.dumps, (clockwise, open_ring, nameless)), documents["geojson"][:-1])
    assert all(found)
    record_property("cases", len(found))
