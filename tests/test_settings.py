"""Settings: four sources, one frozen object, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.errors import SettingsError
from contract.settings import Settings, load
from encoders.fold_rules import FoldLimits


def refusal(*overrides: str, environ: Mapping[str, str] | None = None, config: Path | None = None) -> str:
    """What the refusal of these settings says; it is one line."""
    with pytest.raises(SettingsError) as refused:
        load(overrides, config=config, environ=environ or {})
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)
    return str(refused.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "stoppress.toml"
    path.write_text(text)
    return path


def test_without_sources_there_are_the_defaults() -> None:
    settings = load(environ={"PATH": "/bin", "STOPPRES_PORT": "1"})
    assert settings.namespace == "stoppress."
    assert settings.port is None
    assert settings.kafka == {}


def test_a_later_source_wins(tmp_path: Path) -> None:
    config = write(tmp_path, 'namespace = "file."\nslot = "file"\npartitions = 3')
    environ = {"STOPPRESS_SLOT": "environment", "STOPPRESS_PARTITIONS": "4"}
    settings = load(["partitions=5"], config=config, environ=environ)
    assert (settings.namespace, settings.slot, settings.partitions) == ("file.", "environment", 5)


def test_the_file_may_be_named_in_the_environment_but_the_command_line_wins(tmp_path: Path) -> None:
    config = write(tmp_path, 'slot = "named"')
    assert load(environ={"STOPPRESS_CONFIG": str(config)}).slot == "named"
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", 'slot = "given"')
    assert load(config=other, environ={"STOPPRESS_CONFIG": str(config)}).slot == "given"


def test_an_empty_name_of_a_file_names_none() -> None:
    assert load(environ={"STOPPRESS_CONFIG": ""}).slot == "0"


def test_the_last_of_two_equal_overrides_counts() -> None:
    assert load(["slot=a", "slot=b"], environ={}).slot == "b"


def test_lists_and_maps_are_json_in_text_and_plain_in_toml(tmp_path: Path) -> None:
    kafka = {"security.protocol": "SSL"}
    text = load([f"kafka={json.dumps(kafka)}", 'cors_origins=["http://a"]'], environ={})
    toml = load(config=write(tmp_path, 'cors_origins = ["http://a"]\n[kafka]\n"security.protocol" = "SSL"'), environ={})
    assert text.kafka == toml.kafka == kafka
    assert text.cors_origins == toml.cors_origins == ["http://a"]


def test_a_value_may_hold_an_equals_sign() -> None:
    assert load(["control_url=http://a/?b=c"], environ={}).control_url == "http://a/?b=c"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(environ={}).slot = "1"


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"overrides": ["colour=red"]}, "--set: unknown setting 'colour'; the known ones are in docs/settings.md"),
        ({"overrides": ["PORT=1"]}, "--set: unknown setting 'PORT'"),
        ({"environ": {"STOPPRESS_COLOUR": "red"}}, "environment: unknown setting 'colour'"),
        ({"overrides": ["colour"]}, "--set 'colour' is not name=value"),
        ({"overrides": ["=red"]}, "unknown setting ''"),
    ],
)
def test_an_unknown_setting_is_named_with_its_source(sources: dict[str, Any], says: str) -> None:
    assert says in refusal(*sources.get("overrides", ()), environ=sources.get("environ"))


WRONG = {
    "partitions=many": "--set: partitions = 'many' cannot be used: Input should be a valid integer",
    "partitions=0": "greater than or equal to 1",
    "partitions=1.5": "valid integer",
    "port=65536": "less than or equal to 65535",
    "port=": "valid integer",
    "bootstrap_servers=": "at least 1 character",
    "namespace=a b": "match pattern",
    "slot=": "match pattern",
    "device=tpu": "'auto', 'cpu' or 'cuda'",
    "explain=perhaps": "valid boolean",
    "refresh_seconds=0": "greater than 0",
    "refresh_seconds=inf": "finite number",
    "short_half_life_hours=nan": "--set: short_half_life_hours = 'nan' cannot be used",
    "log_level=loud": "'debug', 'info', 'warning' or 'error'",
    "kafka=security.protocol": "--set: kafka is not JSON",
    "kafka=[]": "kafka cannot be used: Input should be a valid dictionary",
    'kafka={"socket.timeout.ms": 1000}': '"socket.timeout.ms": Input should be a valid string',
    'kafka={"ssl": {"ca": "x"}}': 'strings, as in "security.protocol" = "SSL"',
    "cors_origins=http://a": "--set: cors_origins is not JSON",
    'cors_origins="http://a"': "valid list",
}


@pytest.mark.parametrize(("override", "says"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_told_with_what_it_should_be(override: str, says: str) -> None:
    assert says in refusal(override)


def test_a_wrong_value_is_told_with_the_source_that_gave_it(tmp_path: Path) -> None:
    config = write(tmp_path, "partitions = 0")
    assert refusal(config=config).startswith(f"{config}: partitions = 0 cannot be used")
    assert refusal(environ={"STOPPRESS_PARTITIONS": "x"}).startswith("environment: partitions = 'x'")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.toml'}: No such file" in refusal(config=tmp_path / "none.toml")
    assert f"{tmp_path}: Is a directory" in refusal(config=tmp_path)
    assert "is not TOML" in refusal(config=write(tmp_path, "partitions: 12"))
    (tmp_path / "stoppress.toml").write_bytes(b'slot = "\xe9"')
    assert "is not TOML" in refusal(config=tmp_path / "stoppress.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_services_may_listen_on_loopback(host: str) -> None:
    assert load([f"host={host}"], environ={}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "127.0.0.1.example.org"])
def test_services_beyond_loopback_are_refused(host: str) -> None:
    said = refusal(f"host={host}")
    assert f"host = '{host}' cannot be used: it is beyond loopback and the services have no authentication" in said
    assert "use 127.0.0.1" in said


SECRETS = {
    "sasl.password": "hush-1",
    "sasl.username": "hush-2",
    "sasl.oauthbearer.client.secret": "hush-3",
    "sasl.oauthbearer.config": "hush-4",
    "sasl.oauthbearer.assertion.private.key.passphrase": "hush-5",
    "sasl.oauthbearer.assertion.private.key.pem": "hush-6",
    "ssl.key.password": "hush-7",
    "ssl.key.pem": "hush-8",
    "ssl.keystore.password": "hush-9",
}


def test_secrets_are_masked_in_the_log() -> None:
    settings = load([f"kafka={json.dumps(SECRETS | {'security.protocol': 'SASL_SSL'})}"], environ={})
    logged = settings.for_log()
    assert logged["kafka"] == dict.fromkeys(SECRETS, "***") | {"security.protocol": "SASL_SSL"}
    assert "hush" not in json.dumps(logged)
    assert settings.kafka["sasl.password"] == "hush-1"


def test_a_password_in_the_tracking_uri_is_masked() -> None:
    settings = load(["tracking_uri=https://me:hush@example.org/mlflow"], environ={})
    assert settings.for_log()["tracking_uri"] == "https://***@example.org/mlflow"


def test_everything_else_is_logged() -> None:
    assert load(environ={}).for_log().keys() == Settings.model_fields.keys()


@pytest.mark.parametrize(
    "kafka",
    ['{"sasl.password": "hush"', '["hush"]', '{"sasl.password": {"x": "hush"}}', '{"sasl.password": "hush", "a": 1}'],
)
def test_a_refusal_tells_no_secret(kafka: str) -> None:
    assert "hush" not in refusal(f"kafka={kafka}")
    assert "hush" not in refusal(environ={"STOPPRESS_KAFKA": kafka})


def test_each_bound_of_a_users_state_is_a_setting() -> None:
    by_setting = {
        "waiting_clicks": "waiting_clicks", "recent_events": "recents", "read_articles": "read",
        "seen_event_ids": "seen", "shown_articles": "shown", "followed_targets": "follows", "muted_targets": "mutes",
        "category_affinities": "affinities", "co_reads": "co_reads", "events_per_minute": "events_per_minute",
    }  # fmt: skip
    times = {"waiting_hours": "waiting_ms", "user_ttl_days": "user_ttl_ms"}
    fields = {field.name for field in dataclasses.fields(FoldLimits)}
    assert fields == {*by_setting.values(), *times.values()}
    default = FoldLimits.of(load([], environ={}))
    assert default == FoldLimits()
    assert (default.recents, default.read, default.seen, default.shown) == (50, 128, 64, 128)
    for setting, field in by_setting.items():
        limits = FoldLimits.of(load([f"{setting}=7"], environ={}))
        assert limits == dataclasses.replace(default, **{field: 7}), setting
    assert FoldLimits.of(load(["waiting_hours=0.5"], environ={})).waiting_ms == 30 * 60_000
    assert FoldLimits.of(load(["user_ttl_days=2"], environ={})).user_ttl_ms == 48 * 3_600_000
