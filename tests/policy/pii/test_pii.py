"""The detector of personal data: texts of every kind that it finds, and texts that must stay allowed (P24, TX1-TX3)."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from geocast.policy.pii import BUILT_IN_REGION, KINDS, Finding, PiiDetector, _disjoint, is_region
from geocast.wire.fields import Headline

# Texts that are found, by kind. If only a part of a text is found, the part is between « and ».
FOUND = {
    "address": [
        "1204 N Main Street",
        "5Main Street",
        "«88 Alder Rd».",
        "12A Oak St",
        "12-14 Oak Street",
        "500 W 7th Ave",
        "100 The Embarcadero",
        "450 Broadway",
        "4500 FM 1960",
        "12000 Highway 6",
        "20 Avenue of the Palms",
        "1200 block of Main",
        "0 Block of CLAY ST",
        "1200 hundred block of Elm",
        "apt. 4B",
        "Apartment C",
        "suite #12",
        "5th & Main",
        "Main & 5th",
        "«ALBA RD & NORTH HILLS» AVE",
        "EDDY ST/LEAVENWORTH ST",
        "Oak St @ 3rd Ave",
        "Main Street and Elm Street",
        "Main Street at Elm Street",
        "corner of Oak and Main",
        "intersection of 5th",
        "«RT309 EXPY & S EASTON RD» OVERPASS",
        "TERRY A «FRANCOIS BLVD / 4TH ST»",
        "１２０４ Main Street",
        "12\u200b04 Main Street",
        "12\u202e04\u2066 Main Street",
        "1\ufe0f\u20e32\ufe0f\u20e3 Main Street",
        "12\u2800Main Street",
        "12 Cafe\u0301 Street",
        "12 Ma\u0337in Street",
        "123 Martin Luther King Jr. Blvd",
        "100 J.F.K. Blvd",
        "300-block of Guerrero St",
        "1200-blk of Elm Ave",
        "300\u2011block of Guerrero St",
        "the «300 and 400 blocks of Elm Ave»",
        "300th block of Elm Ave",
        "three «hundred block of Elm Ave»",
        "unit block of Elm Ave",
        "block 300 of Elm Ave",
        "300 Bl\u00f6ck of Elm Ave",
        "300 Bl\u022bck of Elm Ave",
        "5th and Main",
        "Main and 5th",
        "Guerrero at 18th",
        "«Pine Rd. and Oak St».",
        "away from «Pine Road and Oak Street»",
        "Main Street and Elm",
        "Pine Rd near Oak St",
        "where «Pine Rd meets Oak St»",
        "Pine Rd just north of Oak St",
        "Pine Rd, at Oak St",
        "crossing of Oak and Main",
        "oak st & pine ave",
        "Oak St. at its junction with Pine Rd.",
        "«Oak St (cross street: Pine Rd»)",
        "the «Oak St.-Pine Rd». intersection",
        "Oak and Pine Streets",
        "the «Oak and Main» intersection",
        "Oak St around the corner from Pine Rd",
        "«Main Street W. & Martin Luther King Jr. Blvd».",
        "Oak St near U.S. 422",
        "County Road 12 at I-76",
        "the «600s of Oak Street»",
        "27XX Oak Street",
        "the «first block of Oak Street»",
        "12 Stratford-upon-Avon Road",
        "١٢٠٤ Main Street",
        "१२०४ Main Street",
        "❶❷ Main Street",
        "⑴⑵ Main Street",
        "12\ufff904\ufffb Main Street",
        "12\ufffc04 Main Street",
    ],
    "units": [
        "4 units",
        "4units",
        "three fire engines",
        "two police cars",
        "a «dozen officers»",
        "Engine 12",
        "Truck No. 7",
        "E12",
        "RS1",
        "E-12",
        "Engine-12",
        "Engines 12 and 14",
        "Engine Company No. 5",
        "Task Forces 8 and 9",
        "three ladder trucks",
        "twenty-five firefighters",
        "two large red fire trucks",
        "dozens of police officers",
        "six sheriff's deputies",
        "two SWAT teams",
        "one ladder truck",
        "100+ firefighters",
        "Engine Co. 5",
        "«7x medic» units",
    ],
    "phone": [
        "(415) 555-2671",
        "+44 20 7946 0958",
        "415.555.2671",
        "4155552671",
        "(415)\n555-2671",
        "Room 12 «415-555-2671»",
        "«415-555-2671» 24/7",
        "Zones 1 2 3 4 5 6 7 8 9 10 11 12 13 are open, call «415-555-2671»",
        "Zones 10 11 12 13 14 15 16 17 18 are open, call 24/7 «415-555-2671»",
        "4 1 5 5 5 5 2 6 7 1",
        "«415-555-2671» 415-555-2672",
    ],
    "contact": ["ana@example.org", "https://example.org/x?y", "www.example.org", "city.example.gov", "@cityalerts"],
    "name": [
        "Mr Smith",
        "Mrs. A. Lopez",
        "Dr. Ana Lopez",
        "resident Ana Lopez",
        "Officer Jane Doe",
        "Officer Johnson",
        "OFFICER JANE DOE",
        "MR SMITH",
        "SGT KOWALCZYK",
        "Deputy Kowalczyk",
    ],
    "coordinates": [
        "32.7767, -96.797",
        "32.7767 N 96.797 W",
        "37.789°",
        "«37° 47'» N",
        "32.7767\n-96.797",
        "N«32.7767 W96.797»",
        "«lat 32.7767», «lng -96.797»",
        "(«32.7767) (-96.797»)",
        "[«32.7767] | [-96.797»]",
        '{"«lat":32.7767»,"«lng":-96.797»}',
        "8928308280fffff",
        "8928308280\U000e0020fffff",
    ],
    "document": ["123-45-6789", "4111 1111 1111 1111", "4111 1111\n1111 1111", "378282246310005"],
}
SAYABLE = [
    "Building on fire. Keep windows closed and stay away.",
    "Avoid Main Street.",
    "Avoid Main Street between 5th Street and 7th Street.",
    "4 inches of snow on the road",
    "2 miles north of the bridge",
    "Call 911 or 988.",
    "Winds of 60 mph, gusts to 75 mph, until 5:30 PM",
    "Interstate 35 is closed near mile marker 240",
    "I-35 and US 290 are closed",
    "An EF2 tornado, a Category 4 hurricane, H5N1",
    "Take exit 12",
    "Two people are hurt",
    "A truck 12 feet long",
    "Suspect Vehicle Located In Park",
    "POLICE ACTIVITY IN THE AREA. STAY INSIDE.",
    "The suspect is in custody.",
    "Suspect In Custody",
    "Officer Involved Shooting Under Investigation Downtown",
    "OFFICER INVOLVED SHOOTING. AVOID DOWNTOWN.",
    "Officers and Deputies are in the area.",
    "Stay out of the 10-block area downtown",
    "The park is 5 blocks away",
    "Avoid Main Street and stay inside.",
    "Avoid Main Street on May 5th and Monday",
    "Avoid Main Street. Police are in the area.",
    "Two lanes and the crews' parking are closed",
    "M-25 and I-35 are closed",
    "Route 309 northbound is shut after a crash.",
    "One lane of the M25 is blocked, expect long delays.",
    "On May 5 police will close the road.",
    "One firefighter was hurt.",
    "Main Dr is closed",
    "Gas leak at the school",
    "Fire & Rescue asks you to stay inside",
    "Smoke/ash over the city",
    "Magnitude 5.2 earthquake at 10.5 km depth near 15.3 North 61.2 West",
    "The order ends 2026-11-26.",
    "Shelters: 12, 14 and 16.\n24/7 hotline 311",
    "जल न पिएँ",
    "",
]


def plain(marked):
    """Return a text without the marks around what is found in it."""
    return marked.replace("«", "").replace("»", "")


@pytest.mark.parametrize(("kind", "words"), [(kind, words) for kind, all_words in FOUND.items() for words in all_words])
@pytest.mark.parametrize("sentence", ["{}", "Trouble near {} now, stay inside.", "({})"])
def test_text_that_identifies_a_person_or_place_is_found_and_classified(kind, words, sentence):
    """The position of the revealing words in a sentence does not matter (rule P24)."""
    assert kind in {found.kind for found in PiiDetector().find(sentence.format(plain(words)))}


@pytest.mark.parametrize("text", SAYABLE)
def test_useful_warning_text_is_not_reported(text):
    """Alerts must be able to say which streets to avoid, which roads are closed, how strong and how far (rule TX3)."""
    assert PiiDetector().find(text) == []


@pytest.mark.parametrize("character", ["\ue000", "\U0010fffd", "\u0378", "\uffff", "\x1b"])
def test_text_with_an_invisible_or_unassigned_character_is_refused(character):
    """Private-use, unassigned and control characters could hide a text from the detector (rules L2, HD13)."""
    with pytest.raises(ValidationError, match="must hold no control character, no private-use, unassigned"):
        TypeAdapter(Headline).validate_python(f"Fire at 12{character}04 Main Street")


def test_examples_of_these_tests_include_every_kind_of_finding():
    """The kinds are those of the detector (rule P24)."""
    assert FOUND.keys() == KINDS.keys()


def test_finding_has_positions_in_the_original_text():
    """Folding moves characters, and the desk marks the original text (rule P24)."""
    text = "ﬃ\u200b\u200b at １２ Main St!"
    [found] = PiiDetector().find(text)
    assert (found.kind, text[found.start : found.end]) == ("address", "１２ Main St")


def test_overlapping_findings_are_joined():
    """The findings are in the order of the text.

    If one of the joined kinds can't be confirmed, that kind is reported (rule P24).
    """
    assert PiiDetector().find("12 Oak St & 3rd Ave, E12") == [Finding("address", 0, 19), Finding("units", 21, 24)]
    assert [found.kind for found in PiiDetector().find("see 32.7767,-96.7970 now")] == ["coordinates"]


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ([("phone", 0, 5), ("phone", 5, 9)], [("phone", 0, 5), ("phone", 5, 9)]),  # they only touch
        ([("phone", 0, 5), ("phone", 4, 9)], [("phone", 0, 9)]),
        ([("phone", 0, 9), ("phone", 4, 6)], [("phone", 0, 9)]),
        ([("phone", 0, 5), ("units", 4, 9)], [("phone", 0, 9)]),
        ([("units", 4, 9), ("phone", 0, 5)], [("phone", 0, 9)]),
        ([("phone", 0, 5), ("units", 0, 9)], [("units", 0, 9)]),  # of two that begin together, the longer one
        ([("phone", 0, 5), ("document", 4, 9)], [("document", 0, 9)]),
        ([("document", 0, 5), ("phone", 4, 9)], [("document", 0, 9)]),
        ([("document", 0, 5), ("coordinates", 4, 9)], [("document", 0, 9)]),
        ([], []),
    ],
)
def test_findings_that_overlap_are_joined_under_one_kind(given, joined):
    """A kind that nobody can confirm to be harmless is kept (rule P24)."""
    assert _disjoint(Finding(*each) for each in given) == joined


@pytest.mark.parametrize("allowed", ["www.city.example", "WWW.CITY.EXAMPLE/alerts"])
def test_text_on_the_allow_list_is_not_reported(allowed):
    """Case does not matter, but a longer text than the literal is found (rule TX2)."""
    assert PiiDetector(allowed=(allowed,)).find("See www.city.example for shelters.") == []
    assert PiiDetector(allowed=("www.city.example",)).find("See www.city.example.evil.org")


def test_telephone_number_is_found_in_its_region_only():
    """The region is the policy's `text_region` (rule P24)."""
    assert PiiDetector(region="CH").find("Ring 044 668 18 00") == [Finding("phone", 5, 18)]
    assert PiiDetector(region="US").find("Ring 044 668 18 00") == []


@pytest.mark.parametrize(("code", "is_known"), [(BUILT_IN_REGION, True), ("CH", True), ("ch", False), ("XX", False)])
def test_region_is_a_country_code_that_the_library_for_numbers_knows(code, is_known):
    """A policy with any other `text_region` is refused (rule P24)."""
    assert is_region(code) is is_known


def test_matches_of_configured_patterns_are_reported_with_their_kind():
    """Policies have them for other languages and for codes of units (rule TX2)."""
    pii = PiiDetector(patterns={"units": (re.compile(r"\bRTW \d+\b"),), "address": (re.compile(r"\w+straße \d+"),)})
    assert [found.kind for found in pii.find("RTW 3 in die Dorfstraße 4")] == ["units", "address"]


STREETS = [
    ("Elm Street", "Oak Avenue"),
    ("New York Avenue", "St. Paul Street"),
    ("Calle de la Luz", "Avenida Cesar Chavez"),
    ("W. 5th St.", "South First Ave."),
    ("Broadway", "US 75"),
    ("ELM ST", "S FIRST AVE"),
    ("elm st", "oak ave"),
]
MET = [
    "where {} dead-ends at {}",
    "where {} turns into {}",
    "turned from {} onto {}",
    "on {}, half a block south of {}",
    "on {} two doors down from {}",
    "on {} over by {}",
    "on {} in front of a shop at {}",
    "on {} across the street from {}",
    "at {}'s intersection with {}",
    "{}, X-ST {}",
    "{} (cross street: {})",
    "on {} as it approached {}",
    "down {} and crashed at {}",
    "at {} on {}",
    "on {} at or near {}",
    "{} ({})",
]
TWO_NAMES = {
    "plural": ["«Oak & Elm Sts».", "Martin Luther King Jr. and Oak Streets", "Oak/Elm streets"],
    "a word for the meeting": [
        "the «Oak/Elm» intersection",
        "the Van «Ness-Cesar Chavez junction»",
        "Elm, at the «junction with Oak»",
        "the «intersection of oak and elm»",
        "cnr. Oak and Elm",
        "where «Oak meets Elm»",
        "Cross streets are Elm and Oak",
    ],
    "an ordinal": [
        "at «Twentieth and Elm»",
        "at «Elm & Third»",
        "the «58th-and-First» corner",
        "at «5th and 10th»",
        "at «3rd and pike»",
    ],
    "letters for directions": ["N. «Clark and W. Division»", "SW «8 ST / SW 27 AVE»"],
    "a stretch": [
        "shots on «Oak Street between 5th and 7th»",
        "shots on «Oak Street between Elm and Pine» streets",
        "a fire on «Oak Street from Elm Avenue to Pine Avenue»",
        "the block of «Oak Lane between Elm Street and Pine Street»",
    ],
}
BLOCKS = [
    "«BLOCK: 300» LOCATION: ELM ST",
    "1200BLK VANCE DR",
    "«300 B/O» ELM",
    "800-899 Camino Real",
    "«69xx» Grand Concourse",
    "block number 300 of Elm Street",
    "1400 to 1450 on Elm Street",
    "the «1400's of Elm Street»",
    "the «last block of Elm Street»",
    "the «1400 north block of Elm Street»",
]
UNITS = {
    "the number behind": [
        "Units dispatched: 5",
        "UNITS ON SCENE (4)",
        "engines x3",
        "No. of «officers: 12»",
        "Personnel: 42",
    ],
    "a number and x": ["2x patrol", "1x ambulance", "3 x ladder trucks"],
    "a spelled number": ["Engine Fifteen", "Medic Forty-Seven", "«Unit eight» worked", "Air One"],
    "a call sign": ["Three-Adam-39", "1 Lincoln 20", "Adam-12", "Sam 14 en route", "7A23"],
    "in the air": ["Copter 3", "Air Attack 42", "Life Flight 2", "Chopper 2"],
    "a group": ["a «seven-unit response»", "a «12-person crew»", "a «20-officer detail»"],
    "cars of an agency": [
        "Officers arrived in «six cars»",
        "Police have «three cars» there",
        "«Two cars» are on the way",
    ],
    "bases": ["crews from «three towns»", "officers from «four departments»"],
    "a list": ["«E-40» and «M-25»", "«E7»/«T3»/«M2»"],
    "alone": ["a «lone deputy»", "only «one officer»"],
    "nicknames": ["Four black-and-whites", "six search-and-rescue teams", "Trooper 118", "Badge 4412"],
}
NO_UNITS = {
    "dwellings and goods": [
        "Eight units in the complex have no water",
        "200 units of blood",
        "Two air conditioning units burned",
    ],
    "measures": ["An M4.1 earthquake", "PM2.5 levels", "PM10 levels are high", "E85 fuel"],
    "cars and places": [
        "a black BMW X5",
        "Gate B12",
        "Leave zones A1, B2 and C3",
        "Zone SFO-E12 must leave",
        "the M60 bus",
    ],
    "who is hurt": ["Two firefighters were treated for heat", "Three officers hurt", "killed two deputies"],
    "other things": [
        "Two cars were towed",
        "Rescue two people",
        "Officers arrested three people in two cars",
        "Alpha-1 strain",
        "2026-01-02T10:00",
        "H5N1",
    ],
}
NO_PLACES = [
    "Elm Street is closed between Oak Avenue and Pine Road.",
    "Elm Street is closed from Oak Avenue to Pine Road.",
    "Traffic on Elm Street is diverted onto Oak Avenue.",
    "Avoid Elm Street; take Oak Avenue.",
    "Take Elm Street north to Oak Avenue.",
    "I-25 between Chugwater and Wheatland is icy.",
    "I-80 west of Highway 50 is icy, and so is Highway 50 at Echo Summit.",
    "Block 12 customers have no power.",
    "Where Mill Creek meets Elk River, water is high.",
    "The 7th and 8th grades go home at noon.",
    "The first and third floors are closed.",
    "First and foremost, stay calm.",
    "Boil water in Oak Park and Pine Hills.",
    "NWS El Paso Tx/Santa Teresa NM",
]


def grouped(groups):
    """Return the texts of all groups as parameters, each with the name of its group in its id."""
    return [pytest.param(text, id=f"{group}: {text}") for group, texts in groups.items() for text in texts]


def kinds(text):
    """Return the kinds of findings in the text."""
    return {found.kind for found in PiiDetector().find(text)}


@pytest.mark.parametrize("streets", STREETS, ids=" and ".join)
@pytest.mark.parametrize("form", MET)
def test_two_streets_joined_by_words_like_near_are_found_as_an_address(form, streets):
    """The last word between them decides (rule HD13)."""
    assert "address" in kinds(f"A car burns {form.format(*streets)} now.")


@pytest.mark.parametrize("text", [*grouped(TWO_NAMES), *BLOCKS])
def test_bare_street_names_and_unusual_block_numbers_are_found_as_addresses(text):
    """Other words show that the names are streets (rule HD13)."""
    assert "address" in kinds(f"Trouble: {plain(text)}, stay inside.")


@pytest.mark.parametrize("text", grouped(UNITS))
def test_emergency_units_written_in_unusual_forms_are_found(text):
    """The forms are numbers before or after the word, in digits or spelled out, call signs and lists (rule HD13)."""
    assert "units" in kinds(f"{plain(text)} now.")


@pytest.mark.parametrize("text", [*grouped(NO_UNITS), *NO_PLACES])
def test_text_that_only_looks_like_a_unit_or_place_is_not_reported(text):
    """Examples are measures, dwellings, people who are hurt, and directions (rule TX3)."""
    assert kinds(text) == set()


@pytest.mark.parametrize("behind", ["", " now."])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, words) for kind, all_words in FOUND.items() for words in all_words),
        *(("address", words) for all_words in (*TWO_NAMES.values(), BLOCKS) for words in all_words),
        *(("units", words) for all_words in UNITS.values() for words in all_words),
    ],
)
def test_finding_begins_and_ends_with_the_revealing_words(kind, words, behind):
    """The desk marks these words, and a person has to confirm their kind (rule P24)."""
    text = f"Trouble near {plain(words)}{behind}"
    found = [(each.kind, text[each.start : each.end].rstrip()) for each in PiiDetector().find(text)]
    assert found == [(kind, part) for part in re.findall("«(.+?)»", words) or [words]]


# Sentences in which a small change of the rules would find more, less or nothing. Findings are between « and ».
SENTENCES = [
    "Fire at «Elm Street and Oak Avenue».",
    "Fire in the «300 block of Elm Street».",
    "«Engines 3 and 36» are here.",
    "Here are «two police helicopters».",
    "We sent «two engines», «four trucks» and «a battalion chief».",  # "four trucks" alone would not be found
    "Bus 800-850 Express is late.",
    "Crews in 5 Parks close the road.",
    "Smoke at «5 Maple Close».",
    "The 300th Oak Street parade is today.",
    "The 50km Oak Street run is today.",
    "«E7»/«M2»/«T3» are here.",
    "Smoke at «Oak Street and the M60».",
    "Smoke at «Avenida Cesar Chavez and Elm Street».",
    "Guerrero - 18th annual run",
    "Music at Elm & Sons",
    "Smoke at «Main Street and elm st» now.",
    "Smoke on «Pine Rd (and Oak St»)",
    "Avoid Pine Rd., and Oak St. is closed.",
    "The corner Oak fell.",
    "Smoke near Oak St («cross: Pine»)",
    "Red Cross: Oak Hall is open.",
    "Smoke on Oak, around the «corner from Pine Rd».",
    "Smoke at «Main and New Streets».",
    "The 7th and 8th fires are out.",
    "Smoke in the «7th and 8th» area",
    "A fire on «Oak Street from Elm Avenue».",
    "Smoke at «Oak Street & St.James».",
    "Smoke at «cnr Oak.and Elm».",
    "Smoke at «Main Street & Stoke-on-Trent Rd».",
    "«Old Oak & Elm Streets» burn.",
    "A car left Elm Street and was on Oak Avenue.",
    "Smoke where «Pine South Rd meets Oak St» now.",
    "Stay where Oak",
    "Go away from «Pine and Oak Street».",
    "Main and Elm Street burn.",
    "Smoke near «450 Broadway» and «Engine 12».",
    "Smoke at «Main and 5th» at city hall.",
    "Take shelter at «Main Street and Elm».",
    "Smoke at «Main x Elm Street».",
    "«2x unmarked patrol cars» came.",
    "«3 x ladder» came.",
    "«Two cars» are on Phillips Way.",
    "The «medics x4» came.",
    "Only one officer was hurt.",
    "Crews three towns away came.",
    "Fifteen Engine rooms burn.",
    "All «available units» came.",
    "A «single engine» came.",
    "Call «4155552671», «1200-blk of Elm Ave» burns.",
    "Smoke in the «300 block along Elm Ave».",
    "Smoke in the «300 block of 5th».",
    "Smoke at «20 Avenue Foch».",
    "Smoke in «apt # 12».",
    "Chat with Oak@ Avenue today.",
    "Two cars are parked on the way.",
    "Briefing of officers: 9:30 today",
    "Out/«T3»/«M2» are here.",
    "«One engine company» came.",
    "«One brush-truck» came.",
    "Room 127A23 is closed.",
    "Smoke at «800-899» Camino",
    "Much smoke comes from «800-899» Real",
    "El Paso the block of Oak Lane",
    "Smoke at «Rue Elm & Oak Rd» now.",
    "Smoke at «Elm Rd-5th Ave» now.",
    "«New and Oak Streets» burn.",
    "Smoke where «Elm Street Near Oak».",
    "Elm towed «Street Private and Oak Avenue».",
    "«Oak St near U.S. 422 and Four».",
    "«Engines 5», 6 miles away",
    "Smoke at «block #300 of Elm Ave» now.",
    "Smoke at «1400 to 1450 along Elm Street» now.",
    "Smoke at «Via de la Paz and Elm Street» now.",
    "Smoke at «12 W. Broadway» now.",
    "Smoke near the corner of the of the of Elm",
    "On May Elm Street near 5th",
    "«Oak Plaza x Elm» burns.",
    "Big Fire Burns At Elm Street And First",
    "Police sent two cars of water.",
    "three-engine full scale fire response",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_only_the_revealing_words_of_a_sentence_are_found(sentence):
    """Neither more nor less is marked: nothing revealing is left if findings are cut out (rules P24, HD13, TX3)."""
    text = plain(sentence)
    found = [text[each.start : each.end] for each in PiiDetector().find(text)]
    assert found == re.findall("«(.+?)»", sentence)
