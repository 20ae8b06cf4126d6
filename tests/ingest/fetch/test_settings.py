"""The file of feeds: what may be in it, and what is said about mistakes (rule FE1)."""

import pytest
from end_to_end.kit.tls import make_certificate

from geocast.ingest.fetch.settings import host_of, load_feeds
from geocast.model.errors import ConfigError

URL = 'url = "https://met.example/cap/feed.atom"\n'


def written(tmp_path, text):
    """Write a file of feeds and return its path."""
    path = tmp_path / "feeds.toml"
    path.write_text(text)
    return path


def only(tmp_path, keys):
    """Return the only feed of a file with these keys."""
    [feed] = load_feeds(written(tmp_path, f"[feeds.met]\n{keys}")).values()
    return feed


def problems(tmp_path, text):
    """Return what is said about a file, without its path."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_feeds(path)
    return [problem.removeprefix(f"--feeds {path}: ") for problem in caught.value.problems]


def test_feed_with_only_a_url_has_the_defaults(tmp_path):
    """Links may lead only to the feed's own host (rule FE1)."""
    feed = only(tmp_path, URL)
    assert (feed.name, feed.interval_s, feed.max_bytes) == ("met", 60, 5 * 1024 * 1024)
    assert feed.hosts == frozenset({"met.example:443"})
    assert not any((feed.allow_http, feed.allow_private, feed.headers, feed.token_file))


def test_link_hosts_are_allowed_with_the_ports_of_https_and_http(tmp_path):
    """Without a port, that of the scheme is meant; http needs `allow_http` (rule FE1)."""
    keys = URL + 'link_hosts = ["cap.met.example", "cdn.example:8443"]\n'
    assert only(tmp_path, keys).hosts == {"met.example:443", "cap.met.example:443", "cdn.example:8443"}
    assert "cap.met.example:80" in only(tmp_path, keys + "allow_http = true").hosts


def test_files_are_relative_to_the_file_of_feeds(tmp_path):
    """The secret headers, the token and the certificates are in files of their own (rule FE1)."""
    (tmp_path / "headers").write_text("X-Api-Key: a secret\n\nAccept-Language: en\n")
    certificate = make_certificate(tmp_path)
    keys = f'headers_file = "headers"\ntoken_file = "token"\nca_file = "{certificate.crt.name}"'
    feed = only(tmp_path, URL + keys)
    assert feed.headers == (("X-Api-Key", "a secret"), ("Accept-Language", "en"))
    assert feed.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (URL + "intervals_s = 20", "feeds.met.intervals_s: is not a known key; did you mean interval_s?"),
        (URL + "interval_s = 14", "feeds.met.interval_s: must be at least 15"),
        (URL + "max_bytes = 10", "feeds.met.max_bytes: must be at least 1,024"),
        (URL + 'link_hosts = ["https://x"]', "feeds.met.link_hosts.0: must be HOST or HOST:PORT"),
        ('url = "ftp://met.example/"', "feeds.met.url: expected https://HOST/PATH"),
        ('url = "https://me:word@met.example/"', "feeds.met.url: expected https://HOST/PATH, without a user"),
        ('url = "https://met.example:99999/"', "feeds.met.url: expected https://HOST/PATH"),
        ('url = "https://met.example/#x"', "feeds.met.url: expected https://HOST/PATH"),
        ('url = "http://met.example/"', "feeds.met.url: http:// can be altered on the way: give https://"),
        (URL + 'headers_file = "none"', "feeds.met.headers_file: No such file or directory"),
        (URL + 'ca_file = "none"', "feeds.met.ca_file: No such file or directory"),
        (URL + 'ca_file = "feeds.toml"', "feeds.met.ca_file: no certificates in PEM"),
        ("", "feeds.met.url: is needed"),
    ],
)
def test_mistake_in_a_feed_is_named_with_its_key(tmp_path, keys, said):
    """No value is repeated, because a URL may contain a key (rule FE1)."""
    [problem] = problems(tmp_path, f"[feeds.met]\n{keys}")
    assert problem.startswith(said)
    assert "word" not in problem


@pytest.mark.parametrize(
    "line", ["Host: x", "no colon", "X-Key: ä", "If-None-Match: *", "X-Key:", ": x", "Content-Length: 3", "X Y: z"]
)
def test_header_that_could_change_the_request_is_refused(tmp_path, line):
    """The line is named by its number (rule FE1)."""
    (tmp_path / "headers").write_text(f"X-Good: 1\n{line}\n", "utf-8")
    [problem] = problems(tmp_path, f'[feeds.met]\n{URL}headers_file = "headers"')
    assert "headers_file: line 2: expected" in problem or "headers_file: not ASCII" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "feeds: is needed"),
        ("[feeds]", "feeds: must have at least 1"),
        ("[feed.met]\n" + URL, "feed: is not a known key; did you mean feeds?"),
        ("[feeds.met", "not TOML: at end of document"),
        (f'[feeds."a b"]\n{URL}', "feeds: entry 1: its name must have 1 to 64 letters, digits or . _ -"),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path, text, said):
    """The text says what is expected (rule FE1)."""
    assert any(problem.startswith(said) for problem in problems(tmp_path, text))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://met.example/x", "met.example:443"),
        ("http://MET.example:81", "met.example:81"),
        ("http://[::1]/", "::1:80"),
        ("https://met.example@evil.example/", None),
        ("https://mét.example/", None),
        ("https://met.example:x/", None),
        ("file:///etc/passwd", None),
        ("https:///x", None),
        ("", None),
    ],
)
def test_host_of_a_url_is_its_host_and_port(url, host):
    """A URL that could be read in two ways has none (rule FE1)."""
    assert host_of(url) == host
