"""Tests of conventions that read the source: layers, imports, docstrings, and access to exact places.

The layers come from the drawing in ARCHITECTURE.md under "Imports go down only".
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
    "starlette",
}


@cache
def tree(path):
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def imported(module):
    """Return the modules of geocast that a module imports anywhere in its text, and the names of other packages."""
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
    """Return a drawing of ARCHITECTURE.md as one set of names for each line, the highest line first."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    [drawing] = re.findall(rf"^## {heading}\n+```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [set(line.split()) for line in drawing.splitlines() if line.strip()]


def layers():
    """Return the layers of the server, the highest first."""
    return drawing_under("Imports go down only")


def package_of(module):
    """Return the server's top-level package that contains a module, or the module itself if it is in none."""
    return module.split(".")[0]


def arrows():
    """Return each pair of packages of which the first imports the second."""
    pairs = {
        (package_of(module), package_of(other))
        for module in MODULES.keys() - ENTRY_POINTS
        for other in imported(module)[0] - {"__init__"}
    }
    return {(one, other) for one, other in pairs if one != other}


@cache
def reachable(*modules):
    """Return these modules of geocast and all modules that they import, directly or indirectly."""
    found, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += imported(module)[0]
    return found


# ---- layers --------------------------------------------------------------------------------------------------


def test_architecture_drawing_has_every_package_once():
    """ARCHITECTURE.md, "Imports go down only": the drawing has all packages, and none that does not exist."""
    drawing = layers()
    names = set().union(*drawing)
    assert sum(map(len, drawing)) == len(names), "a package is drawn twice"
    assert {package_of(module) for module in MODULES.keys() - ENTRY_POINTS} == names


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRY_POINTS))
def test_module_imports_only_from_lower_layers(module):
    """ARCHITECTURE.md: a module imports from packages on lower lines of the drawing, and from its own package."""
    heights = {name: height for height, line in enumerate(reversed(layers())) for name in line}
    own = package_of(module)
    for other in imported(module)[0] - {"__init__"}:
        assert package_of(other) == own or heights[package_of(other)] < heights[own], f"{module} imports {other}"


def test_numbers_of_packages_and_of_imports_between_them_match_architecture_md():
    """ARCHITECTURE.md: there are at most 25 packages and 140 arrows, and the document gives the exact numbers."""
    rooms = {package_of(module) for module in MODULES.keys() - ENTRY_POINTS}
    print(f"packages: {len(rooms)}, arrows: {len(arrows())}")
    assert len(rooms) <= MOST_PACKAGES
    assert len(arrows()) <= MOST_ARROWS
    told = f"{len(rooms)} packages and files, and {len(arrows())} arrows between them"
    assert told in " ".join((ROOT / "ARCHITECTURE.md").read_text("utf-8").split())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_have_no_import_cycle(module):
    """ARCHITECTURE.md: modules of one package have no import cycle either."""
    assert not any(module in reachable(other) for other in imported(module)[0])


@pytest.mark.parametrize("package", [PACKAGE, CLIENTS], ids=lambda package: package.name)
def test_each_public_class_name_is_used_only_once(package):
    """A class name in a message, a test or a search result leads to one class of the server or of the clients."""
    found = {}
    for path in package.rglob("*.py"):
        for node in tree(path).body if "node_modules" not in path.parts else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(path.relative_to(package))
    twice = {name: files for name, files in found.items() if len(files) > 1}
    assert twice == {}, "choose another name: each public class has a name of its own"


def test_top_level_package_imports_nothing():
    """`import geocast` costs nothing, and every module may import the version."""
    assert not [node for node in tree(MODULES["__init__"]).body if isinstance(node, ast.Import | ast.ImportFrom)]


# ---- the core without I/O ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(reachable("stream.hub", "stream.session", "ingest.publish")))
def test_core_modules_import_no_io(module):
    """ARCHITECTURE.md: `stream.hub`, `stream.session`, `ingest.publish` and all their imports use no asyncio or socket.

    (`config` binds the sockets; no module of the core imports it.)
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
def test_core_modules_are_among_those_checked_for_io(module):
    """ARCHITECTURE.md: `test_core_modules_import_no_io` checks these modules, among others."""
    assert module in reachable("stream.hub", "stream.session", "ingest.publish")


def test_server_does_not_use_asyncio_wait_for():
    """In Python 3.11, `asyncio.wait_for` loses a cancellation that arrives together with a result.

    A node could hang.
    """
    assert {path.name for path in PACKAGE.rglob("*.py") if "asyncio.wait_for(" in path.read_text("utf-8")} == set()


def test_only_module_geometry_sphere_imports_h3():
    assert {module for module in MODULES if "h3" in imported(module)[1]} == {"geometry.sphere"}


def test_only_listed_modules_use_shapely():
    """ARCHITECTURE.md: shapely is for published polygons, CAP zones, the feed's map and publishers' jurisdictions."""
    lazy = "geometry.lazy_shapely"
    users = {module for module in MODULES if "shapely" in imported(module)[1] or lazy in imported(module)[0]}
    assert users - {lazy} == {
        "geometry.published_polygon",
        "geometry.polygon_union",
        "geometry.coarse_cover",
        "feed.map_polygons",
        "policy.publishers.jurisdiction",
    }


def test_only_the_primary_imports_the_redis_library():
    """`geocast.storage.redis.primary` sets the deadline of every command."""
    assert {module for module in MODULES if "redis" in imported(module)[1]} == {"storage.redis.primary"}


def log_backends():
    """Return the modules and packages of `alertlog` that implement its port: with a class that appends and reads."""
    return {
        ".".join(module.split(".")[:2])
        for module, path in MODULES.items()
        for node in tree(path).body
        if module.startswith("alertlog.") and isinstance(node, ast.ClassDef)
        if {"append", "follow", "live"} <= methods(node)
    }


def test_only_module_run_backends_imports_an_implementation_of_the_alert_log():
    """ARCHITECTURE.md: all other modules use the log's port."""
    assert {"alertlog.memory", "alertlog.sqlite", "alertlog.redis_streams"} <= log_backends()
    for backend in log_backends():
        within = re.compile(rf"{re.escape(backend)}(\.|$)")
        users = {module for module in MODULES if any(map(within.match, imported(module)[0]))}
        users -= set(filter(within.match, users))
        assert users == {"run.backends"}, backend


@pytest.mark.parametrize("library", ["starlette", "uvicorn", "websockets"])
def test_only_packages_for_network_io_import_web_frameworks(library):
    """`wire.frames` uses the frame format of websockets, but no connection."""
    users = {module for module in MODULES if library in imported(module)[1]}
    http = {module for module in MODULES if module.startswith("api.")} | {"feed.routes", "push.routes"}
    allowed = {"websockets": {"wire.frames", "stream.connection"}}.get(library, http)
    assert users <= allowed


def test_server_imports_no_other_folder_of_the_repository():
    """ARCHITECTURE.md: `geocast listen` is the only one that uses the client, which is in the same package."""
    assert {module for module in MODULES if "geocast_client" in imported(module)[1]} == {"cli.listen"}
    for module in MODULES:
        assert not imported(module)[1] & {"client_demo", "bench", "tests", "support"}


# ---- the parts of the log in Redis -----------------------------------------------------------------------------


def test_redis_log_modules_import_only_from_lower_lines_of_the_drawing():
    """ARCHITECTURE.md, "The parts of the log in Redis": the drawing has all modules of the package."""
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


def test_redis_log_history_does_no_io():
    """`redis_streams.history` has only state and decisions."""
    assert not imported("alertlog.redis_streams.history")[1] & (IO | {"redis", "time"})


@pytest.mark.parametrize("part", sorted((PACKAGE / "alertlog" / "redis_streams").glob("*.py")), ids=lambda p: p.stem)
def test_redis_log_modules_assign_only_to_their_own_state(part):
    """ARCHITECTURE.md: assignments go to attributes of `self`, except those of a follower's reading."""
    for node in ast.walk(tree(part)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) else ():
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Attribute):
                    owner = ast.unparse(each.value)
                    assert owner in ("self", "follower.reading", "reading"), f"{part.name}:{each.lineno}"


# ---- the clients' packages -----------------------------------------------------------------------------------


def client_modules():
    """Return the files of client_demo, except the package itself and `-m client_demo`."""
    files = sorted(path.relative_to(CLIENTS) for path in CLIENTS.rglob("*.py") if "node_modules" not in path.parts)
    return [str(file) for file in files if str(file) not in ("__init__.py", "__main__.py")]


def room_of(file):
    """Return the package of client_demo that contains a file: a folder, or a module outside of all folders."""
    return Path(file).parts[0].removesuffix(".py")


def client_rooms():
    """Return the packages in ARCHITECTURE.md's drawing of client_demo, each with its height."""
    lines = reversed(drawing_under("The clients' packages"))
    return {name: height for height, line in enumerate(lines) for name in line}


def test_architecture_drawing_has_every_client_package():
    """ARCHITECTURE.md, "The clients' packages": the drawing has all of them and no others."""
    assert {room_of(file) for file in client_modules()} == client_rooms().keys()


@pytest.mark.parametrize("file", client_modules())
def test_client_packages_import_only_from_lower_layers(file):
    """Imports within a package are relative, and imports from lower packages absolute. No client imports geocast."""
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
def test_client_packages_made_to_be_copied_import_no_other_package(file):
    """ARCHITECTURE.md: `python` and `web` can be copied out of the repository."""
    assert not any(
        (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("client_demo"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("client_demo") for alias in node.names))
        for node in ast.walk(tree(CLIENTS / file))
    )


def test_web_library_imports_only_from_its_folder():
    """ARCHITECTURE.md: `web/geocast` can be copied unchanged."""
    for part in (CLIENTS / "web" / "geocast").glob("*.*s"):
        text = part.read_text("utf-8")
        for name in re.findall(r"""\bfrom ["']([^"']+)["'];?(?: \*/)?$|\bimport\(["']([^"']+)""", text, re.MULTILINE):
            source = "".join(name)
            assert re.fullmatch(r"\./[\w.-]+", source), f"{part.name} imports {source}"


# ---- modules that see exact places ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RequestedCircle", "Publication"])
def test_requested_circle_is_used_only_by_modules_that_publish(name):
    """All other modules see only the published circle (`geocast.wire.requests`, Rule 1; protocol, B4)."""
    users = set()
    for module, path in MODULES.items():
        for node in ast.walk(tree(path)):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= set(re.findall(r"^\w+$", node.value))  # a quoted annotation
            if name in names:
                users.add(module)
    assert "wire.requests" in users
    assert users <= {"wire.requests", "ingest.publish", "ingest.cap.draft"}


def test_requested_call_is_used_only_by_modules_that_encrypt_it():
    """The service that decides about a call encrypts its place.

    No other module sees the place (`geocast.calls.request`, Rule 1).
    """
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if "RequestedCall" in {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
    }
    assert "calls.request" in users
    assert users <= {"calls.request", "calls.service"}


def test_modules_that_deliver_alerts_do_not_import_the_request_models():
    """Neither the log nor matching nor a session imports the request models (`geocast.wire.requests`, Rule 1)."""
    assert "wire.requests" not in reachable(
        "stream.server", "stream.hub", *(module for module in MODULES if "alertlog" in module)
    )


def test_alert_model_imports_no_validation_code():
    """The modules that validate create alerts; `geocast.model.alert` imports none of them."""
    assert imported("model.alert")[0] == set()
    assert "pydantic" not in imported("model.alert")[1]


def test_only_request_modules_turn_requested_circles_into_published_ones():
    """A requested circle becomes a published one in the request modules (`geocast.wire.requests`, Rule 1; RZ6).

    A test that a subscriber has asked for is around the subscriber's own place (TR2).
    """
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if {"publish_circle", "publish_area"}
        & {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
    }
    assert users == {"wire.requests", "calls.request", "geometry.sphere", "stream.own_tests"}


ENOUGH_WORDS = 4  # the least number of words in a docstring

# ---- docstrings ----------------------------------------------------------------------------------------------


def methods(node):
    """Return the names of the methods in a class's own text."""
    return {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)} - {"__init__"}


def members(node):
    """Return the methods of a class and the attributes that it declares."""
    return methods(node) | {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}


def is_port(node):
    """Return whether a class is a Protocol."""
    return "Protocol" in {getattr(base, "id", "") for base in node.bases}


@cache
def ports():
    """Return the methods of each Protocol. The Protocol documents them for all implementations."""
    classes = [node for path in MODULES.values() for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    return [methods(node) for node in classes if is_port(node)]


def told_elsewhere(module, node):
    """Return the methods and attributes of a class that a base class or an implemented Protocol documents."""
    bases = getattr(importlib.import_module(f"geocast.{module}"), node.name).__mro__[1:-1]
    of_ports = set() if is_port(node) else set().union(*(port for port in ports() if port <= members(node)))
    return of_ports | {name for name in members(node) if any(hasattr(base, name) for base in bases)}


def is_overload(node):
    """Return whether a function is one of several typed signatures."""
    return "overload" in {getattr(each, "id", "") for each in node.decorator_list}


def undocumented(module):
    """Yield the public classes and functions of a module whose docstrings have fewer than ENOUGH_WORDS words."""
    for node in ast.walk(tree(MODULES[module])):
        told = told_elsewhere(module, node) if isinstance(node, ast.ClassDef) and node.name[0] != "_" else set()
        if isinstance(node, ast.ClassDef | ast.Module) and not getattr(node, "name", "").startswith("_"):
            for child in node.body:
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not is_overload(child):
                    words = (ast.get_docstring(child) or "").split()
                    if child.name[0] != "_" and child.name not in told and len(words) < ENOUGH_WORDS:
                        yield child.name


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRY_POINTS))
def test_every_public_name_has_a_docstring(module):
    """Modules, classes and functions need one. Methods that a base class or a Protocol documents do not."""
    assert ast.get_docstring(tree(MODULES[module])), f"{module} has no docstring"
    assert list(undocumented(module)) == [], f"these need a docstring of at least {ENOUGH_WORDS} words"


def own_tests():
    """Return the test files of the server's packages."""
    packages = {package_of(module) for module in MODULES} - ENTRY_POINTS
    folders = [folder for folder in sorted((ROOT / "tests").iterdir()) if folder.name in packages]
    return [path for folder in folders for path in sorted(folder.rglob("test_*.py"))]


@pytest.mark.parametrize("path", own_tests(), ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_test_file_has_a_docstring(path):
    """A test function needs a docstring only if its name does not say everything."""
    assert ast.get_docstring(tree(path))


def test_each_code_tour_of_architecture_md_names_10_to_20_existing_files():
    """ARCHITECTURE.md, "Six walks": all named files exist, and no walk is too long to follow."""
    part = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("\n## Six walks\n")[1].split("\n## ")[0]
    walks = part.split("\n### ")[1:]
    assert len(walks) == 6
    for walk in walks:
        files = set(re.findall(r"`([a-z]\w*(?:/\w+)+)`", walk))
        missing = {name for name in files if name.replace("/", ".") not in MODULES}
        assert not missing, missing
        assert 10 <= len(files) <= 20, (walk.splitlines()[0], len(files), sorted(files))
