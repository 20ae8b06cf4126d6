"""The conventions of the code, proved by reading it: layers, what the core may know, docstrings, who sees a place.

The layers are those that ARCHITECTURE.md draws under "Imports go down only": the drawing is what is tested.
"""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "geocast"
CLIENTS = ROOT / "client_demo"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MOST_PACKAGES, MOST_ARROWS = 25, 140
ENTRY_POINTS = {"__init__", "__main__"}  # the package itself, which has a docstring and a version; and `-m geocast`
IO = {
    "asyncio",
    "socket",
    "select",
    "selectors",
    "threading",
    "subprocess",
    "uvloop",
    "uvicorn",
    "fastapi",
    "starlette",
}


@cache
def tree(path):
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def imported(module):
    """What a module of geocast imports, wherever in its text: ("alertlog.sqlite" and so on, "numpy" and so on)."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    if module == "__init__":
        package = []
    ours, others = set(), set()
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                ours.add(whole if whole in MODULES else ".".join(base) or "__init__")
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module)
    assert not any(name.split(".")[0] == "geocast" for name in others), f"{module}: imports within are relative"
    return ours - {module}, {name.split(".")[0] for name in others}


def drawing_under(heading):
    """A drawing of ARCHITECTURE.md: one set of names for each line, the highest first."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    [drawing] = re.findall(rf"^## {heading}\n+```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [set(line.split()) for line in drawing.splitlines() if line.strip()]


def layers():
    """The layers of the server."""
    return drawing_under("Imports go down only")


def package_of(module):
    """The package at the top of the server that a module is in, or the module itself if it is in none."""
    return module.split(".")[0]


def arrows():
    """Each pair of packages of which the first one imports the second one."""
    pairs = {
        (package_of(module), package_of(other))
        for module in MODULES.keys() - ENTRY_POINTS
        for other in imported(module)[0] - {"__init__"}
    }
    return {(one, other) for one, other in pairs if one != other}


@cache
def reachable(*modules):
    """These modules of geocast and all that they import, directly or not."""
    found, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += imported(module)[0]
    return found


# ---- layers --------------------------------------------------------------------------------------------------


def test_every_package_is_drawn_once():
    """ARCHITECTURE.md, "Imports go down only": no package is left out, and none is drawn that does not exist."""
    drawing = layers()
    names = set().union(*drawing)
    assert sum(map(len, drawing)) == len(names), "a package is drawn twice"
    assert {package_of(module) for module in MODULES.keys() - ENTRY_POINTS} == names


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRY_POINTS))
def test_imports_go_down_only(module):
    """ARCHITECTURE.md: a module imports from packages on lines below its own, and from its own package."""
    heights = {name: height for height, line in enumerate(reversed(layers())) for name in line}
    own = package_of(module)
    for other in imported(module)[0] - {"__init__"}:
        assert package_of(other) == own or heights[package_of(other)] < heights[own], f"{module} imports {other}"


def test_packages_and_imports_between_them_are_as_many_as_architecture_says():
    """ARCHITECTURE.md: at most 25 packages and 140 arrows; the document says how many there are."""
    rooms = {package_of(module) for module in MODULES.keys() - ENTRY_POINTS}
    print(f"packages: {len(rooms)}, arrows: {len(arrows())}")
    assert len(rooms) <= MOST_PACKAGES
    assert len(arrows()) <= MOST_ARROWS
    told = f"{len(rooms)} packages and files, and {len(arrows())} arrows between them"
    assert told in " ".join((ROOT / "ARCHITECTURE.md").read_text("utf-8").split())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nobody_imports_in_a_circle(module):
    """ARCHITECTURE.md: within a package too."""
    assert not any(module in reachable(other) for other in imported(module)[0])


@pytest.mark.parametrize("package", [PACKAGE, CLIENTS], ids=lambda package: package.name)
def test_no_two_public_classes_share_a_name(package):
    """A name in a message, a test or a search leads to one class of the server, and to one of the clients."""
    found = {}
    for path in package.rglob("*.py"):
        for node in tree(path).body if "node_modules" not in path.parts else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(path.relative_to(package))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_the_package_itself_imports_nothing():
    """`import geocast` costs nothing, and every module may import the version."""
    assert imported("__init__") == (set(), set())


# ---- what the core may know ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(reachable("stream.hub", "stream.session", "ingest.publish")))
def test_the_core_knows_no_loop_and_no_socket(module):
    """ARCHITECTURE.md: `stream.hub`, and all that it imports, know no asyncio and no socket; `ingest.publish` neither.

    (`config` binds the sockets that are passed down; nothing of the core imports it.)
    """
    assert not imported(module)[1] & IO


@pytest.mark.parametrize(
    "module",
    [
        "model.alert",
        "wire.fields",
        "wire.requests",
        "policy",
        "policy.confirmation",
        "geometry.sphere",
        "matching.place_index",
        "matching.circle_index",
        "stream.live_alerts",
        "wire.frames",
        "matching.filters",
        "auth.tokens",
        "stream.session",
        "stream.hub",
        "ingest.publish",
    ],
)
def test_the_core_is_the_core(module):
    """ARCHITECTURE.md: these are among what the test before this one looks at."""
    assert module in reachable("stream.hub", "stream.session", "ingest.publish")


def test_server_does_not_use_wait_for():
    """`asyncio.wait_for` of Python 3.11 loses a cancellation that comes with a result: a node could not end."""
    assert {path.name for path in PACKAGE.rglob("*.py") if "asyncio.wait_for(" in path.read_text("utf-8")} == set()


def test_one_file_imports_h3():
    """`geocast.geometry.sphere`: the only file that imports h3."""
    assert {module for module in MODULES if "h3" in imported(module)[1]} == {"geometry.sphere"}


def test_those_import_shapely_that_draw_on_a_plane():
    """ARCHITECTURE.md: what is published, zones, what the feed draws, and where a publisher may publish."""
    users = {module for module in MODULES if "shapely" in imported(module)[1]}
    assert users == {
        "geometry.published_polygon",
        "geometry.polygon_union",
        "geometry.coarse_cover",
        "feed.map_polygons",
        "policy.publishers.jurisdiction",
    }


def test_one_file_imports_redis():
    """`geocast.alertlog.redis_streams.connection`: the only file that imports redis, and every deadline is there."""
    assert {module for module in MODULES if "redis" in imported(module)[1]} == {"alertlog.redis_streams.connection"}


@pytest.mark.parametrize("backend", ["alertlog.memory", "alertlog.sqlite", "alertlog.redis_streams"])
def test_only_the_composition_root_knows_a_backend(backend):
    """ARCHITECTURE.md: everybody else knows the log's port."""
    assert {module for module in MODULES if backend in imported(module)[0]} == {"run.node"}


@pytest.mark.parametrize("library", ["fastapi", "starlette", "uvicorn", "websockets"])
def test_frameworks_stay_where_sockets_are(library):
    """`wire.frames` takes the frame format of websockets, and no connection of it."""
    users = {module for module in MODULES if library in imported(module)[1]}
    http = {module for module in MODULES if module.startswith("api.")} | {"feed.routes", "push.routes"}
    allowed = {"websockets": {"wire.frames", "stream.connection"}}.get(library, http)
    assert users <= allowed


def test_the_server_imports_nothing_of_its_neighbours():
    """ARCHITECTURE.md: server/geocast is the only package that is shipped."""
    for module in MODULES:
        assert not imported(module)[1] & {"client_demo", "bench", "tests", "support"}


# ---- the parts of the log in Redis -----------------------------------------------------------------------------


def test_the_parts_of_the_log_in_redis_import_one_way():
    """ARCHITECTURE.md, "The parts of the log in Redis": from lines below their own; none is left out."""
    package = "alertlog.redis_streams."
    heights = {
        name: height
        for height, line in enumerate(reversed(drawing_under("The parts of the log in Redis")))
        for name in line
    }
    parts = {module.removeprefix(package) for module in MODULES if module.startswith(package)}
    assert parts == heights.keys()
    for part in parts:
        for other in imported(package + part)[0]:
            if other.startswith(package):
                name = other.removeprefix(package)
                assert heights[name] < heights[part], f"{part} imports {name}"


def test_the_history_of_the_log_in_redis_asks_nobody():
    """`redis_streams.history`: state and decisions, without I/O."""
    assert not imported("alertlog.redis_streams.history")[1] & (IO | {"redis", "time"})


@pytest.mark.parametrize("part", sorted((PACKAGE / "alertlog" / "redis_streams").glob("*.py")), ids=lambda p: p.stem)
def test_no_part_of_the_log_in_redis_writes_anothers_state(part):
    """ARCHITECTURE.md: what is assigned to stands directly under `self`, but for a follower's own reading."""
    for node in ast.walk(tree(part)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) else ():
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Attribute):
                    owner = ast.unparse(each.value)
                    assert owner in ("self", "follower.reading", "reading"), f"{part.name}:{each.lineno}"


# ---- the clients' packages -----------------------------------------------------------------------------------


def client_modules():
    """The files of client_demo, but for the package itself and `-m client_demo`."""
    files = sorted(path.relative_to(CLIENTS) for path in CLIENTS.rglob("*.py") if "node_modules" not in path.parts)
    return [str(file) for file in files if str(file) not in ("__init__.py", "__main__.py")]


def room_of(file):
    """The room that a file of client_demo is in: a folder, or a module that stands alone."""
    return Path(file).parts[0].removesuffix(".py")


def client_rooms():
    """ARCHITECTURE.md's drawing of client_demo: room -> its height."""
    lines = reversed(drawing_under("The clients' packages"))
    return {name: height for height, line in enumerate(lines) for name in line}


def test_every_room_of_the_clients_is_drawn():
    """ARCHITECTURE.md, "The clients' packages"."""
    assert {room_of(file) for file in client_modules()} == client_rooms().keys()


@pytest.mark.parametrize("file", client_modules())
def test_the_clients_rooms_import_one_way(file):
    """ARCHITECTURE.md: from rooms below, by their whole name; within a room by a relative one; never from geocast."""
    heights, here = client_rooms(), room_of(file)
    for node in ast.walk(tree(CLIENTS / file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, "a relative import stays within the room"
            names = [] if node.level else [node.module]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            assert package not in ("geocast", "bench", "tests"), name
            if package == "client_demo":
                assert heights[rest.partition(".")[0]] < heights[here], f"{file} imports {name}"


@pytest.mark.parametrize("file", [file for file in client_modules() if room_of(file) in ("python", "web")])
def test_what_others_take_away_stands_alone(file):
    """ARCHITECTURE.md: `python` and `web` import from no room at all."""
    assert not any(
        (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("client_demo"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("client_demo") for alias in node.names))
        for node in ast.walk(tree(CLIENTS / file))
    )


def test_the_web_library_imports_nothing_from_outside_of_its_folder():
    """ARCHITECTURE.md: `web/geocast` can be copied as it is."""
    for part in (CLIENTS / "web" / "geocast").glob("*.*s"):
        text = part.read_text("utf-8")
        for name in re.findall(r"""\bfrom ["']([^"']+)["'];?(?: \*/)?$|\bimport\(["']([^"']+)""", text, re.MULTILINE):
            source = "".join(name)
            assert re.fullmatch(r"\./[\w.-]+", source), f"{part.name} imports {source}"


# ---- the exact place -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RequestedCircle", "Publication"])
def test_nothing_downstream_can_take_a_requested_circle(name):
    """`geocast.wire.requests`, Rule 1; protocol, B4: only the published circle goes any further."""
    users = set()
    for module, path in MODULES.items():
        for node in ast.walk(tree(path)):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= set(re.findall(r"^\w+$", node.value))  # an annotation in quotes
            if name in names:
                users.add(module)
    assert "wire.requests" in users
    assert users <= {"wire.requests", "ingest.publish", "ingest.cap.draft"}


def test_nothing_but_what_is_sealed_takes_the_place_of_a_call_that_was_asked_for():
    """`geocast.calls.request`, Rule 1: whoever decides about calls seals it, and nobody else sees it."""
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if "RequestedCall" in {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
    }
    assert "calls.request" in users
    assert users <= {"calls.request", "calls.service"}


def test_nobody_who_delivers_can_reach_a_request():
    """`geocast.wire.requests`, Rule 1: neither the log, nor matching, nor a session imports what it is made of."""
    assert "wire.requests" not in reachable(
        "stream.server", "stream.hub", *(module for module in MODULES if "alertlog" in module)
    )


def test_an_alert_is_plain_data():
    """`geocast.model.alert`: it is made by those who have validated, and imports nothing of them."""
    assert imported("model.alert")[0] == set()
    assert "pydantic" not in imported("model.alert")[1]


def test_only_a_request_is_published_as_a_circle():
    """`geocast.wire.requests`, Rule 1: a requested circle becomes a published one there; and RZ6."""
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if {"publish_circle", "publish_area"}
        & {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
    }
    assert users == {"wire.requests", "calls.request", "geometry.sphere"}


ENOUGH_WORDS = 5  # of a docstring

# ---- docstrings ----------------------------------------------------------------------------------------------


def methods(node):
    """The methods of a class, in its text."""
    return {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)} - {"__init__"}


def members(node):
    """The methods of a class and the attributes that it declares."""
    return methods(node) | {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}


def is_port(node):
    """Whether a class is a Protocol."""
    return "Protocol" in {getattr(base, "id", "") for base in node.bases}


@cache
def ports():
    """The methods of each Protocol of the package: what they do is told there, once for all that keep it."""
    classes = [node for path in MODULES.values() for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    return [methods(node) for node in classes if is_port(node)]


def told_elsewhere(module, node):
    """The members of a class that a base class, or a port that it keeps, has told of."""
    bases = getattr(importlib.import_module(f"geocast.{module}"), node.name).__mro__[1:-1]
    of_ports = set() if is_port(node) else set().union(*(port for port in ports() if port <= members(node)))
    return of_ports | {name for name in members(node) if any(hasattr(base, name) for base in bases)}


def is_overload(node):
    """Whether this is one of several signatures of a function."""
    return "overload" in {getattr(each, "id", "") for each in node.decorator_list}


def undocumented(module):
    """The public classes and functions of a module that have no docstring, or one that says too little."""
    for node in ast.walk(tree(MODULES[module])):
        told = told_elsewhere(module, node) if isinstance(node, ast.ClassDef) and node.name[0] != "_" else set()
        if isinstance(node, ast.ClassDef | ast.Module) and not getattr(node, "name", "").startswith("_"):
            for child in node.body:
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not is_overload(child):
                    words = (ast.get_docstring(child) or "").split()
                    if child.name[0] != "_" and child.name not in told and len(words) < ENOUGH_WORDS:
                        yield child.name


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRY_POINTS))
def test_everything_public_has_a_docstring(module):
    """House rule: every public module, class and function says what it is, in units and errors; overrides need not."""
    assert ast.get_docstring(tree(MODULES[module]))
    assert list(undocumented(module)) == []


def own_tests():
    """The test files of the server's packages."""
    packages = {package_of(module) for module in MODULES} - ENTRY_POINTS
    folders = [folder for folder in sorted((ROOT / "tests").iterdir()) if folder.name in packages]
    return [path for folder in folders for path in sorted(folder.rglob("test_*.py"))]


@pytest.mark.parametrize("path", own_tests(), ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_test_says_which_rule_it_proves(path):
    """House rule: a test is a sentence about behaviour, with a docstring of one line or more."""
    assert ast.get_docstring(tree(path))
    silent = [
        node.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_walks_name_at_most_20_files_that_exist():
    """ARCHITECTURE.md, "Four walks": each file is there, and no walk is longer than a reader can follow."""
    part = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("\n## Four walks\n")[1].split("\n## ")[0]
    walks = part.split("\n### ")[1:]
    assert len(walks) == 4
    for walk in walks:
        files = set(re.findall(r"`([a-z]\w*(?:/\w+)+)`", walk))
        missing = {name for name in files if name.replace("/", ".") not in MODULES}
        assert not missing, missing
        assert 10 <= len(files) <= 20, (walk.splitlines()[0], len(files), sorted(files))
