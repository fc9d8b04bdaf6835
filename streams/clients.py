"""Kafka clients with the properties that were measured to matter."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from contract.errors import BrokerUnreachable, SettingsError
from contract.settings import Settings
from contract.topics import MAX_RECORD_BYTES

_CLUTTER = re.compile(r"^\S+/bootstrap: | \(install [^)]*\)| \(after .*\)$")
_log = logging.getLogger("stoppress.kafka")
Client = TypeVar("Client")


def _common(settings: Settings, name: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": f"{settings.namespace}{name}",
        "logger": _log,
        "reconnect.backoff.max.ms": 1000,
        **settings.kafka,
    }


def _made(client: Callable[[dict[str, Any]], Client], properties: dict[str, Any]) -> Client:
    """Raises :class:`SettingsError` where the client knows a property not, or cannot use its value."""
    try:
        return client(properties)
    except KafkaException as error:
        raise SettingsError(f"kafka cannot be used: {error.args[0].str()}") from None


def make_consumer(
    settings: Settings,
    *,
    name: str,
    group: str | None = None,
    read_committed: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Consumer:
    """Return a consumer that commits nothing by itself and begins at the earliest record.

    ``fetch.queue.backoff.ms`` is 1000 in librdkafka, which makes catching up five times slower.
    """
    return _made(
        Consumer,
        {
            **_common(settings, name),
            "group.id": group or f"{settings.namespace}{name}.ungrouped",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if read_committed else "read_uncommitted",
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 100,
            "max.partition.fetch.bytes": 8 << 20,
            "fetch.max.bytes": 64 << 20,
            "fetch.message.max.bytes": 8 << 20,
            "receive.message.max.bytes": (64 << 20) + MAX_RECORD_BYTES,
            "queued.min.messages": 100_000,
            **(extra or {}),
        },
    )


def make_producer(
    settings: Settings,
    *,
    name: str,
    transactional_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Producer:
    """Return an idempotent producer that partitions as the Java client does."""
    transactional: dict[str, Any] = {}
    if transactional_id is not None:
        transactional = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
        }
    return _made(
        Producer,
        {
            **_common(settings, name),
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 0 if transactional_id else 2,
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 200,
            "message.max.bytes": MAX_RECORD_BYTES,
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 262_144,
            **transactional,
            **(extra or {}),
        },
    )


def make_admin(settings: Settings) -> AdminClient:
    """Return an admin client."""
    return _made(AdminClient, _common(settings, "admin"))


def check_broker(settings: Settings, seconds: float = 5.0) -> None:
    """Block until a broker answers, at most ``seconds``. Raises :class:`BrokerUnreachable`."""
    heard: list[KafkaError] = []
    quiet = {"error_cb": heard.append, "log_level": 0}
    admin = _made(AdminClient, _common(settings, "admin") | quiet)
    try:
        admin.list_topics(timeout=seconds)
    except KafkaException:
        admin.poll(0)  # hands out what was heard meanwhile, which says more than that the time is over
        told = {_CLUTTER.sub("", error.str()) for error in heard if error.code() != KafkaError._ALL_BROKERS_DOWN}
        why = max(sorted(told), key=len, default="it ends the connection, as one does that asks for TLS or SASL")
        raise BrokerUnreachable(
            f"no Kafka broker answers at {settings.bootstrap_servers} ({why}); start one (`stoppress kafka start`), "
            "set STOPPRESS_BOOTSTRAP_SERVERS, or TLS and SASL in STOPPRESS_KAFKA"
        ) from None
