"""Who gets in: our own names, our own pages, and whoever has a key where keys are set; all before a body is read."""

import pytest

from api import keys
from api.app import create_app
from api.security import is_loopback, split_host

JSON = "application/json"


@pytest.fixture
def key_file(tmp_path):
    """Where the keys are."""
    return tmp_path / "keys" / "dreamq.keys"


@pytest.fixture
def key(key_file):
    """A key that counts."""
    return keys.add(key_file, "ada")


@pytest.fixture
def locked(settings, key_file, key):
    """A client of an API with keys set, which has none."""
    return create_app(settings.model_copy(update={"api_keys_file": key_file})).test_client()


def bearer(key):
    """The header that presents a key."""
    return {"Authorization": f"Bearer {key}"}


# Host


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "[::1]", "LOCALHOST"]
)
def test_this_machine_may_call_us_by_the_names_of_loopback(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
        "a b",
        "[::2]",
        "localhost:80:80",
        "evil.example#localhost",
        "localhost,evil.example",
        "user@localhost",
        "localhost\\@evil.example",
    ],
)
def test_a_name_that_is_not_ours_is_refused_everywhere(client, host):
    for path in ("/healthz", "/v1/jobs", "/", "/nowhere"):
        answer = client.get(path, headers={"Host": host})

        assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "forbidden"), path


def test_names_that_the_operator_gave_are_ours(settings):
    client = create_app(settings.model_copy(update={"api_hosts": "dreams.example, api"})).test_client()

    assert client.get("/healthz", headers={"Host": "dreams.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "API:8080"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 403


def test_the_host_that_the_server_listens_on_is_ours(settings):
    client = create_app(settings, bound_host="192.0.2.7").test_client()

    assert client.get("/healthz", headers={"Host": "192.0.2.7:8080"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "192.0.2.8:8080"}).status_code == 403


def test_a_server_on_all_addresses_answers_to_addresses_but_not_to_names(settings):
    client = create_app(settings, bound_host="0.0.0.0").test_client()

    assert client.get("/healthz", headers={"Host": "192.0.2.8:8080"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403


def test_host_headers_are_taken_apart():
    assert split_host("localhost") == ("localhost", "")
    assert split_host("LocalHost:8080") == ("localhost", "8080")
    assert split_host("[::1]:8080") == ("::1", "8080")
    assert split_host("::1") == ("", "")


def test_loopback_is_what_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.10", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.0.2.7", "no.such.name.invalid")))


# Origin


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost:9999",
        "http://localhost:3000",
        "null",
        "file://",
        "http://127.0.0.1",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "chrome-extension://abc",
        "",
        "http://",
    ],
)
def test_a_page_of_another_origin_may_not_call(client, origin):
    for call in ("GET /v1/jobs", "POST /v1/jobs", "POST /v1/uploads", "OPTIONS /v1/jobs", "GET /"):
        method, path = call.split()
        answer = client.open(path, method=method, headers={"Origin": origin, "Host": "localhost:8080"})

        assert answer.status_code == 403, call
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost", "https://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_our_own_pages_may_call(client, host, origin):
    assert client.get("/v1/jobs", headers={"Host": host, "Origin": origin}).status_code == 200


def test_our_own_pages_may_call_through_a_proxy_that_changes_the_host(settings):
    client = create_app(settings.model_copy(update={"api_hosts": "dreams.example"})).test_client()

    answer = client.get("/v1/jobs", headers={"Host": "127.0.0.1:8080", "Origin": "https://dreams.example"})

    assert answer.status_code == 200


def test_a_page_elsewhere_may_link_to_us_but_not_embed_us(client):
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}

    assert client.get("/v1/jobs", headers=embedded).status_code == 403
    assert client.get("/", headers=linked).status_code == 200
    assert client.get("/v1/jobs", headers=own).status_code == 200


def test_no_answer_invites_other_origins_and_none_is_guessed_at(client):
    for path in ("/", "/healthz", "/v1/jobs", "/nowhere"):
        headers = client.get(path).headers

        assert not [name for name, _ in headers if name.lower().startswith("access-control")]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_pages_may_run_our_own_scripts_and_nothing_else(client):
    policy = client.get("/").headers["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


# Keys


def test_without_keys_set_no_key_is_needed(client):
    assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("POST", "/v1/uploads"),
        ("GET", "/v1/kinds"),
        ("GET", "/v1/workers"),
        ("GET", f"/v1/jobs/{'0' * 26}"),
        ("GET", f"/v1/jobs/{'0' * 26}/events"),
        ("POST", f"/v1/jobs/{'0' * 26}/cancel"),
        ("GET", f"/v1/jobs/{'0' * 26}/artifacts/x"),
        ("GET", "/v1/nowhere"),
        ("DELETE", "/v1/jobs"),
        ("GET", "/metrics"),
    ],
)
def test_with_keys_set_every_call_needs_one(locked, method, path):
    answer = locked.open(path, method=method)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")


def test_probes_the_description_and_the_pages_need_no_key(locked):
    for path in ("/healthz", "/readyz", "/openapi.json", "/", f"/jobs/{'0' * 26}"):
        assert locked.get(path).status_code == 200, path


def test_a_key_that_counts_opens_the_door(locked, key):
    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 200
    assert locked.get("/v1/jobs", headers={"Authorization": f"bearer  {key} "}).status_code == 200


def test_a_key_that_does_not_count_leaves_it_shut(locked, key, key_file):
    hashed = keys.read(key_file)[0].sha256
    for wrong in ("", "x", key[:-1], key + "x", key.swapcase(), hashed, "zwölf"):
        assert locked.get("/v1/jobs", headers=bearer(wrong)).status_code == 401
    for wrong in (key, f"Basic {key}", f"Bearer{key}", "Bearer"):
        assert locked.get("/v1/jobs", headers={"Authorization": wrong}).status_code == 401


def test_a_key_in_the_address_does_not_count(locked, key):
    assert locked.get(f"/v1/jobs?key={key}&access_token={key}").status_code == 401


def test_a_key_is_asked_for_before_the_body_is_read(locked, send_stream, unreadable):
    for path, content_type in (("/v1/uploads", None), ("/v1/jobs", JSON)):
        answer = send_stream(path, unreadable, length=10, content_type=content_type, to=locked)

        assert answer.status_code == 401


def test_another_origin_is_refused_before_the_body_is_read(client, send_stream, unreadable):
    answer = send_stream("/v1/uploads", unreadable, length=10, headers={"Origin": "http://evil.example"})

    assert answer.status_code == 403


def test_a_key_that_is_made_or_removed_counts_from_then_on(locked, key, key_file):
    new = keys.add(key_file, "bob")
    assert locked.get("/v1/jobs", headers=bearer(new)).status_code == 200

    keys.remove(key_file, "ada")
    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 401
    assert locked.get("/v1/jobs", headers=bearer(new)).status_code == 200


@pytest.mark.parametrize("damage", ["gone", "empty", "garbled", "binary"])
def test_a_key_file_that_cannot_be_used_shuts_the_door(locked, key, key_file, damage):
    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 200
    if damage == "gone":
        key_file.unlink()
    else:
        key_file.write_bytes(
            {"empty": b"", "garbled": b"ada sha256 yesterday\n", "binary": b"\xff\xfe\x00"}[damage]
        )

    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 401
    assert locked.get("/healthz").status_code == 200
