"""One frozen settings object: defaults, then a TOML file, then ``STOPPRESS_*``, then ``--set``.

``STOPPRESS_CONFIG`` or ``--config`` names the TOML file. A name that is not here, or a value that
does not fit, ends the start with exit code 2 and one line.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from contract.errors import SettingsError

PREFIX = "STOPPRESS_"
_STRUCTURED = ("kafka", "cors_origins", "blocked", "languages")
_SECRET_WORDS = ("password", "passphrase", "secret", "token", "key.pem", "username", "jaas", "oauthbearer.config")


class Settings(BaseSettings):
    """Everything that can be set. Durations and sizes carry their unit in the name."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, allow_inf_nan=False)

    bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1, description="where Kafka is")
    kafka: dict[str, str] = Field({}, description="librdkafka properties for every client (TLS, SASL), as JSON")
    namespace: str = Field(
        "stoppress.",
        pattern=r"^[A-Za-z0-9._-]{0,80}$",
        description="what all topics and groups begin with; one per brand",
    )
    slot: str = Field("0", pattern=r"^[A-Za-z0-9_-]{1,40}$", description="names this worker among its peers")
    partitions: int = Field(12, ge=1, le=1024, description="of every topic keyed by user")
    article_partitions: int = Field(4, ge=1, le=1024, description="of the topics keyed by article")
    replication_factor: int = Field(-1, ge=-1, description="of topics to create; -1: the broker's default")

    host: str = Field("127.0.0.1", description="where services listen; loopback only")
    port: int | None = Field(None, ge=0, le=65535, description="where to listen; unset: the worker's own; 0: any free")
    cors_origins: list[str] = Field([], description="pages that may read the feed from another origin, as JSON")
    control_url: str = Field("", description="where the page finds the demo's controls; empty: it shows none")

    encoder: Path = Field(Path("var/encoder"), description="the folder of the exported text encoder")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the encoder runs")
    encoder_threads: int = Field(0, ge=0, le=256, description="0: one per core")
    encoder_batch_articles: int | None = Field(
        None, ge=1, le=4096, description="articles in a micro-batch at most; unset: 64, on CUDA 512"
    )
    encoder_batch_tokens: int | None = Field(
        None, ge=64, le=1_000_000, description="padded tokens in a micro-batch at most; unset: 512, on CUDA 16384"
    )
    encoder_wait_ms: int | None = Field(
        None, ge=0, le=10_000, description="how long a micro-batch waits to fill; unset: 0, on CUDA 5"
    )
    encoder_read_ahead: int = Field(
        50_000,
        ge=1,
        le=1_000_000,
        description="articles read ahead of the encoder at most, so that the newest goes first",
    )

    interest_model: str = Field("", description="the folder of a trained interest model; empty: decay")

    tracking_uri: str = Field(
        "", description="where trainings are recorded in MLflow; empty: where MLFLOW_TRACKING_URI says, or nowhere"
    )
    ranker_model: str = Field("", description="the folder of a trained click model; empty: the hand-made formula")
    ranker_shadow: str = Field(
        "",
        description="a folder in which click models appear, to be judged on live events and put to use where they are "
        "not worse; empty: none",
    )
    ranker_shadow_minutes: float = Field(
        10.0, gt=0, le=1440, description="how long after a list was seen a click in it speaks for a model"
    )

    batch_events: int = Field(5000, ge=1, le=100_000, description="records in one transaction at most")
    batch_wait_ms: int = Field(20, ge=1, le=10_000, description="how long a transaction waits to fill")
    transaction_timeout_ms: int = Field(
        10_000, ge=1000, le=900_000, description="when Kafka aborts a transaction of a worker that is silent"
    )
    session_timeout_ms: int = Field(
        6_000, ge=1000, le=1_800_000, description="when a silent worker's partitions go to another"
    )
    shutdown_seconds: float = Field(10.0, gt=0, le=600, description="how long ending may take")

    long_half_life_hours: float = Field(30 * 24.0, gt=0, le=24 * 3650, description="of the long interest")
    short_half_life_hours: float = Field(2.0, gt=0, le=24 * 3650, description="of the short interest")
    article_ttl_days: float = Field(30.0, gt=0, le=3650, description="when an article is no longer listed")
    user_ttl_days: float = Field(
        180.0, gt=0, le=3650, description="after this long without an event a user starts anew"
    )
    event_retention_days: float = Field(7.0, gt=0, le=3650, description="how long events and dead letters are kept")
    waiting_clicks: int = Field(32, ge=1, le=512, description="clicks of a user that may wait for a vector")
    waiting_hours: float = Field(24.0, gt=0, le=24 * 365, description="how long they may wait")
    recent_events: int = Field(50, ge=1, le=1024, description="a user's last events on articles that are kept")
    read_articles: int = Field(128, ge=1, le=4096, description="articles a user read last that are kept")
    shown_articles: int = Field(128, ge=1, le=4096, description="articles a user was shown last that are kept")
    seen_event_ids: int = Field(64, ge=1, le=4096, description="a user's last event ids, to know what is sent twice")
    followed_targets: int = Field(64, ge=1, le=1024, description="what a user may follow; the newest are kept")
    muted_targets: int = Field(64, ge=1, le=1024, description="what a user may mute; the newest are kept")
    category_affinities: int = Field(16, ge=1, le=256, description="categories whose weight is kept for a user")
    co_reads: int = Field(32, ge=1, le=256, description="articles read next that are kept for an article")
    events_per_minute: int = Field(
        120,
        ge=1,
        description="a user with more, by the events' own times, or with twice as many by those of their records, "
        "does not count in statistics for an hour",
    )

    list_length: int = Field(20, ge=1, le=200, description="items of a list")
    list_minimum: int = Field(
        10, ge=0, le=200, description="caps yield where they would leave a list with fewer items than this"
    )
    pinned_articles: int = Field(1, ge=0, le=200, description="pinned articles at the head of a list, the newest")
    boost: float = Field(1.0, ge=0, le=10, description="what a boosted article's log-odds of a click gain")
    category_share: float = Field(0.5, gt=0, le=1, description="of a list's places that one category may take")
    source_share: float = Field(1.0, gt=0, le=1, description="of a list's places that one source may take")
    fatigue_limit: int = Field(
        20, ge=0, le=255, description="shown so often without a click, an article leaves a user's list; 0: never"
    )
    duplicate_cosine: float = Field(
        0.95, gt=0, le=1.01, description="articles so near each other are one story, listed once; above 1: never"
    )
    diversity: float = Field(
        0.2, ge=0, le=5, description="log-odds that an article loses where it is just like one before it (MMR)"
    )
    exploration: float = Field(0.05, ge=0, le=0.5, description="of places for articles that few have seen")
    explore_impressions: float = Field(50.0, ge=0, description="below so many impressions few have seen an article")
    explore_hours: float = Field(24.0, ge=0, le=24 * 365, description="how long after publication it is explored")
    feedback: bool = Field(
        False, description="whether candidate sources and exploration weigh by how they are clicked, against usual"
    )
    holdout: float = Field(0.02, ge=0, le=1, description="of users who always get the popular list, to compare with")
    blocked: list[str] = Field([], description="entities, authors, categories and sources that are in no list, as JSON")
    languages: list[str] = Field([], description="languages that lists are in, as JSON; empty: all")
    language_reads: int = Field(
        10,
        ge=0,
        le=4096,
        description="articles read, none of them in a language, before those in it leave a user's list; 0: never",
    )
    explain: bool = Field(False, description="put the score's parts into each item")
    refresh_seconds: float = Field(60.0, gt=0, le=86_400, description="every list is ranked again after this long")
    popular_seconds: float = Field(1.0, gt=0, le=86_400, description="how often the popular list is ranked")
    category_lists: int = Field(
        50, ge=0, le=1000, description="categories that have a popular list of their own at most; 0: none has"
    )
    related_length: int = Field(6, ge=0, le=50, description="items of the list of an article's related ones; 0: none")
    related_per_second: float = Field(
        20.0, gt=0, le=100_000, description="lists of related articles that a ranker makes at most"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        """No service here asks who is calling, so none may be reached from elsewhere."""
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost"
        if not loopback:
            raise ValueError(
                "it is beyond loopback and the services have no authentication; "
                "use 127.0.0.1 and put a proxy that authenticates in front"
            )
        return host

    @model_validator(mode="after")
    def _no_contradictions(self) -> Settings:
        if self.pinned_articles > self.list_length:
            raise ValueError(
                f"pinned_articles = {self.pinned_articles} do not fit into list_length = {self.list_length}"
            )
        for name, share in (("category_share", self.category_share), ("source_share", self.source_share)):
            cap = places_of(share, self.list_length)
            if cap < self.pinned_articles:
                raise ValueError(
                    f"{name} = {share} allows {cap} of list_length = {self.list_length}, fewer than "
                    f"pinned_articles = {self.pinned_articles}; raise the one or lower the other"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() merges the sources itself, so that it can name them

    def for_log(self) -> dict[str, Any]:
        """All settings as plain values, secrets masked."""
        plain = self.model_dump(mode="json")
        plain["kafka"] = {
            name: "***" if any(word in name for word in _SECRET_WORDS) else value for name, value in self.kafka.items()
        }
        plain["tracking_uri"] = without_credentials(self.tracking_uri)
        return plain


def without_credentials(uri: str) -> str:
    """Return ``uri`` with what stands before an @ in its authority masked."""
    return re.sub(r"//[^/@]*@", "//***@", uri)


def places_of(share: float, length: int) -> int:
    """Return how many of ``length`` places a share of them is, at least one."""
    return max(1, math.ceil(share * length - 1e-9))


def load(
    overrides: Sequence[str] = (),
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge all sources into :class:`Settings`.

    ``overrides`` are ``name=value`` strings (``--set``); lists and dicts are written as JSON.
    Raises :class:`SettingsError` that names the source, the setting and what it should be.
    """
    environ = os.environ if environ is None else environ
    config = config or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, pairs in (
        (str(config), _from_toml(config) if config else {}),
        ("environment", _from_environment(environ)),
        ("--set", dict(_split(pair) for pair in overrides)),
    ):
        for name, value in pairs.items():
            if name not in Settings.model_fields:
                raise SettingsError(f"{source}: unknown setting {name!r}; the known ones are in docs/settings.md")
            values[name] = _structured(source, name, value)
            origin[name] = source
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise SettingsError(f"the settings contradict each other: {why}") from None
        name = str(first["loc"][0])
        if name == "kafka":  # may hold secrets, so no value is shown
            what = '"' + '"."'.join(map(str, first["loc"][1:])) + '": ' if first["loc"][1:] else ""
            raise SettingsError(
                f"{origin[name]}: kafka cannot be used: {what}{why}; properties and their values are strings, "
                'as in "security.protocol" = "SSL"'
            ) from None
        raise SettingsError(f"{origin[name]}: {name} = {values[name]!r} cannot be used: {why}") from None


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len(PREFIX) :].lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != PREFIX + "CONFIG"
    }


def _split(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise SettingsError(f"--set {pair!r} is not name=value")
    return name.strip(), value


def _structured(source: str, name: str, value: Any) -> Any:
    """Text for a list or dict setting is JSON; everything else pydantic converts itself."""
    if name in _STRUCTURED and isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{source}: {name} is not JSON: {error}") from None
    return value
