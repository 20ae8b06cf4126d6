"""capparselib reads the CAP messages of the feed, with its own schema."""

import pytest
from checked.tool import Tool

TOOL = Tool("capparselib", "CAP messages of the feed", pypi=("capparselib",))


def test_each_message_is_read_with_its_area(documents, record_property):
    """Alerts, an update, a cancel and a warning in two languages."""
    from capparselib.parsers import CAPParser

    found = [CAPParser(message).as_dict() for message in documents["cap"]]
    assert all(len(alerts) == 1 for alerts in found)
    alerts = [alert for [alert] in found]
    assert sorted({str(alert["cap_message_type"]) for alert in alerts}) == ["Alert", "Cancel", "Update"]
    assert {str(alert["cap_sender"]) for alert in alerts} == {"alerts@city.example"}
    languages = [[str(info.get("cap_language", "en-US")) for info in alert["cap_info"]] for alert in alerts]
    assert ["en-GB", "fr"] in languages
    for alert in alerts:
        for info in alert["cap_info"]:
            for area in info["cap_area"]:
                circles, polygons = area.get("circles", []), area.get("polygons", [])
                assert len(circles) + len(polygons) > 0
                for shape in circles:
                    centre, radius_km = str(shape).split(" ")
                    assert within_bounds(centre)
                    assert float(radius_km) > 0
                for shape in polygons:
                    corners = str(shape).split(" ")
                    assert corners[0] == corners[-1]
                    assert all(map(within_bounds, corners))
    record_property("cases", len(alerts))


def within_bounds(pair):
    """Return whether a text is latitude and longitude."""
    lat, lng = map(float, pair.split(","))
    return -90 <= lat <= 90 and -180 <= lng <= 180


def test_broken_message_is_refused(documents):
    """Otherwise the test above could not fail."""
    from capparselib.parsers import CAPParser

    broken = documents["cap"][0].replace("<scope>Public</scope>", "<scope>Anybody</scope>")
    with pytest.raises(Exception, match="objectifying"):
        CAPParser(broken)
