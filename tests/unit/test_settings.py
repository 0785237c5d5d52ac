"""Settings: the file, what overrides it, and mistakes that name their place."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from feedsvc.settings import SettingsError, load, mask_url, warnings

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("FEEDSVC_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        file = tmp_path / "settings.toml"
        file.write_text(text)
        return file

    return written


def test_without_a_file_the_defaults_hold() -> None:
    assert load().server.port == 8080


def test_the_file_is_read(write: Write) -> None:
    assert load(write("[server]\nport = 9000")).server.port == 9000


def test_the_file_may_be_named_in_the_environment(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDSVC_CONFIG", str(write("[server]\nport = 9000")))
    assert load().server.port == 9000


def test_the_environment_overrides_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDSVC_SERVER__PORT", "9001")
    monkeypatch.setenv("FEEDSVC_AUTH__CLAIMS__TENANT", "org.id")
    settings = load(write('[server]\nport = 9000\nhost = "::1"\n[auth.claims]\nrole = "r"'))
    assert (settings.server.port, settings.server.host) == (9001, "::1")
    assert (settings.auth.claims.tenant, settings.auth.claims.role) == ("org.id", "r")


def test_the_platforms_variables_are_understood_below_our_own(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write('[database]\nurl = "postgresql://file/db"')
    monkeypatch.setenv("DATABASE_URL", "postgresql://platform/db")
    monkeypatch.setenv("REDIS_URL", "redis://platform")
    settings = load(file)
    assert settings.database.url.get_secret_value() == "postgresql://platform/db"
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://platform"
    monkeypatch.setenv("FEEDSVC_DATABASE__URL", "postgresql://own/db")
    assert load(file).database.url.get_secret_value() == "postgresql://own/db"


def test_the_datasets_file_stands_beside_the_settings_file(write: Write, tmp_path: Path) -> None:
    assert load(write("")).datasets.file == tmp_path / "datasets.toml"
    elsewhere = write('[datasets]\nfile = "/etc/feeds.toml"')
    assert load(elsewhere).datasets.file == Path("/etc/feeds.toml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[server]\nprot = 1", "server.prot"),
        ("[sever]\nport = 1", "sever"),
        ("[server]\nport = 65536", "server.port"),
        ('[server]\nport = "http"', "server.port"),
        ("[streams]\nstall_timeout = 0", "streams.stall_timeout"),
        ("[streams]\nstall_timeout = inf", "streams.stall_timeout"),
        ("[streams]\nstall_timeout = nan", "streams.stall_timeout"),
        ("[pools.read]\nsize = 0", "pools.read.size"),
        ('[auth]\nalgorithms = ["none"]', "auth.algorithms.0"),
        ("[auth.claims]\ntenants = 1", "auth.claims.tenants"),
        ("[server]\nheader_timeout = 0", "server.header_timeout"),
        ("[server]\nconnections_per_address = 0", "server.connections_per_address"),
        ('[server]\ntrusted_proxies = ["proxy"]', "server.trusted_proxies.0"),
        ('[server]\ntrusted_proxies = ["::1", "10.0.0.1/8"]', "server.trusted_proxies.1"),
        ('[cors]\norigin = ["*"]', "cors.origin"),
        ('[cors]\norigins = ["*", "https://a.example"]', "cors.origins"),
        ("[cors]\nmax_age = -1", "cors.max_age"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_and_key(
    write: Write, text: str, place: str
) -> None:
    file = write(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {place}: ")


def test_each_mistake_has_a_line(write: Write) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write("[server]\nport = -1\nworkers = 0\nspeed = 9"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEEDSVC_SERVER__PORT", "http"),
        ("FEEDSVC_SERVER__PROT", "1"),
        ("FEEDSVC_SEVER__PORT", "1"),
        ("FEEDSVC_POOLS__READ__SIZE", "0"),
        ("FEEDSVC_POOLS__READ__SPEED", "1"),
        ("FEEDSVC_SERVER__TRUSTED_PROXIES", "10.0.0.0/33"),
        ("FEEDSVC_CORS__ORIGINS", '["https://a.example/"]'),
        ("FEEDSVC_CORS__ORIGINS", "[https://a.example]"),
    ],
)
def test_a_mistake_in_the_environment_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{variable}: ")


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com", "http://localhost:5173", "http://[::1]:8080", "capacitor://app"],
)
def test_an_origin_is_as_a_browser_writes_it(write: Write, origin: str) -> None:
    assert load(write(f'[cors]\norigins = ["{origin}"]')).cors.origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://*.example.com",
        "https://App.example.com",
        "https://ann@app.example.com",
        "https://app.example.com:443",
        "https://app.example.com:x",
        "https://app.example.com\\nX: y",
        "https://a.example https://b.example",
    ],
)
def test_what_no_browser_would_write_is_no_origin(write: Write, origin: str) -> None:
    with pytest.raises(SettingsError, match=r"cors\.origins\.0: "):
        load(write(f'[cors]\norigins = ["{origin}"]'))


@pytest.mark.parametrize("text", ['["10.0.0.0/8", "::1"]', "10.0.0.0/8, ::1", "10.0.0.0/8,::1,"])
def test_a_list_in_the_environment_is_json_or_has_commas(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FEEDSVC_SERVER__TRUSTED_PROXIES", text)
    assert [str(network) for network in load().server.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


def test_a_file_that_is_no_toml_or_not_there_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.toml: "):
        load(write("[server"))
    with pytest.raises(SettingsError, match=r"absent\.toml: there is no such"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize("step", ["is_file", "open"])
@pytest.mark.parametrize(
    "fault", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "I/O error")]
)
def test_a_file_that_can_not_be_read_is_named(
    step: str, fault: OSError, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched, for root may read whatever there is."""
    file = write("[server]\nport = 9000")

    def failing(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(Path, step, failing)
    with pytest.raises(SettingsError, match=rf"settings\.toml: can't be read: {fault.strerror}"):
        load(file)


def test_a_mistake_shows_no_secret(write: Write) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write('[auth]\nkey = ["hunter2"]\n[database]\nurl = ["hunter2"]'))
    assert "hunter2" not in str(caught.value)


def test_secrets_are_masked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:hunter2@db:5432/app?password=hunter2")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@cache")
    settings = load(write('[auth]\nkey = "hunter2, and so on until it is long enough"'))
    masked = settings.masked()
    assert "hunter2" not in str(masked) + repr(settings)
    assert masked["database"]["url"] == "postgresql://ann:***@db:5432/app?***"
    assert masked["redis"]["url"] == "redis://:***@cache"


def test_an_address_is_shown_without_its_password_wherever_it_stands(write: Write) -> None:
    text = """
    [auth]
    jwks_url = "https://ann:hunter2@login.example.com/keys?token=hunter2"
    [health.http.billing]
    url = "http://ann:hunter2@billing.internal/up?key=hunter2"
    [health]
    runbook = "https://ann:hunter2@wiki.example.com/feeds"
    [alerts]
    webhook_url = "https://hooks.example.com/hunter2?key=hunter2"
    webhook_key = "hunter2 and at least 16"
    [cors]
    origins = ["https://app.example.com"]
    """
    masked = load(write(text)).masked()
    assert "hunter2" not in str(masked)
    assert masked["auth"]["jwks_url"] == "https://ann:***@login.example.com/keys?***"
    assert masked["health"]["http"]["billing"]["url"] == "http://ann:***@billing.internal/up?***"
    assert masked["cors"]["origins"] == ["https://app.example.com"]


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("", ""),
        ("hunter2", "***"),
        ("postgresql://db/app", "postgresql://db/app"),
        ("postgresql://ann@db/app", "postgresql://ann:***@db/app"),
        ("postgresql://ann:p@ss@db/app", "postgresql://ann:***@db/app"),
        ("redis+cluster://:p@a:1,[::1]:2", "redis+cluster://:***@a:1,[::1]:2"),
        (
            "redis+sentinel://ann:p@a,b/feeds/1?sentinel_password=q",
            "redis+sentinel://ann:***@a,b/feeds/1?***",
        ),
        ("unix://:p@/run/redis?password=p", "unix://:***@/run/redis?***"),
        # What is no URL for want of %2F and the like is never shown in part.
        ("redis://:p/q@a", "redis://:***@a"),
        ("redis://:p#q@a", "redis://:***@a"),
        ("redis://:p?q@a", "redis://***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_standbys_are_listed_though_addresses_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "postgresql://ann:hunter2@a:5433/app, postgres://ann:hunter2@b/app?application_name=x,y"
    monkeypatch.setenv("FEEDSVC_DATABASE__REPLICAS", text)
    settings = load()
    assert [url.get_secret_value() for url in settings.database.replicas] == [
        "postgresql://ann:hunter2@a:5433/app",
        "postgres://ann:hunter2@b/app?application_name=x,y",
    ]
    assert settings.masked()["database"]["replicas"] == [
        "postgresql://ann:***@a:5433/app",
        "postgres://ann:***@b/app?***",
    ]


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ('[database]\nreplicas = ["postgresql://a,b/app"]', "database.replicas.0", "one host"),
        ('[database]\nreplicas = ["a"]', "database.replicas.0", "no postgresql"),
        ("[database]\nreplica_lag = 0.1", "database.replica_lag", "greater"),
        (
            '[database]\nurl = "postgresql://a,b/app?target_session_attrs=read-write"',
            "database.url",
            "target_session_attrs can only be primary",
        ),
        ("[pools.bulk]\nsize = 3\nreserve = 3", "pools.bulk", "reserve must be less"),
        ("[pools.read]\nreserve = -1", "pools.read.reserve", "greater"),
        ('[pools.read]\napplication_name = "naïve"', "pools.read.application_name", "pattern"),
    ],
)
def test_pools_and_standbys_are_judged_at_the_start(
    write: Write, text: str, place: str, what: str
) -> None:
    file = write(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {place}: ")
    assert what in line


@pytest.mark.parametrize(("size", "kept"), [(1, 0), (2, 1), (4, 1), (5, 1), (8, 2), (40, 10)])
def test_a_quarter_is_left_to_small_requests(write: Write, size: int, kept: int) -> None:
    assert load(write(f"[pools.bulk]\nsize = {size}")).pools.bulk.kept_for_small() == kept


def test_limits_of_a_client_are_read_under_their_former_name_too(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("[limits.couple]\nburst = 7\nstreams = 8")
    monkeypatch.setenv("FEEDSVC_LIMITS__COUPLE__STREAMS", "9")
    client = load(file).limits.client
    assert (client.burst, client.streams, client.requests_per_second) == (7, 9, 50)
    assert warnings(file) == [
        f"{file}: [limits.couple] is now [limits.client]: rename it",
        "FEEDSVC_LIMITS__COUPLE__STREAMS is now FEEDSVC_LIMITS__CLIENT__STREAMS: rename it",
    ]


def test_a_former_name_in_the_environment_overrides_the_present_one_in_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("[limits.client]\nburst = 7")
    monkeypatch.setenv("FEEDSVC_LIMITS__COUPLE", '{"burst": 8}')
    assert load(file).limits.client.burst == 8
    monkeypatch.setenv("FEEDSVC_LIMITS__CLIENT__BURST", "9")
    assert load(file).limits.client.burst == 9
    monkeypatch.setenv("FEEDSVC_LIMITS__CLIENT__BURST", "10")
    monkeypatch.setenv("FEEDSVC_LIMITS__COUPLE", "{}")
    assert load(file).limits.client.burst == 10


def test_a_mistake_under_a_former_name_is_named_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDSVC_LIMITS__COUPLE__BURST", "many")
    with pytest.raises(SettingsError, match=r"^FEEDSVC_LIMITS__COUPLE__BURST: "):
        load()


def test_present_names_cause_no_warning(write: Write) -> None:
    assert warnings(write("[limits.client]\nburst = 7")) == []
