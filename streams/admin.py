"""``topics create`` and ``topics check``: the cluster's topics held against the contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from contract.errors import SetupError, TopicsDiffer
from contract.settings import Settings
from contract.topics import TopicSpec
from streams.clients import check_broker, make_admin
from streams.table import end_offsets


def create_topics(settings: Settings, specs: Sequence[TopicSpec], *, alter: bool = False) -> list[str]:
    """Create what is missing; return what was done and what differs, a line each.

    A topic that was there already is only reported; ``alter`` also sets its differing settings.
    Partition counts are never changed. Raises :class:`SetupError` where Kafka refuses.
    """
    check_broker(settings)
    admin = make_admin(settings)
    done = []
    existing = admin.list_topics(timeout=30).topics
    missing = [spec for spec in specs if spec.name not in existing]
    replication = settings.replication_factor
    futures = (
        admin.create_topics(
            [
                NewTopic(s.name, num_partitions=s.partitions, replication_factor=replication, config=s.config)
                for s in missing
            ]
        )
        if missing
        else {}
    )
    for name, future in futures.items():
        try:
            future.result()
            done.append(f"created {name}")
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _refused(f"create {name}", error) from None
            done.append(f"somebody else has just created {name}")
    _await(lambda: all(_serves(admin, spec) for spec in missing))
    altered: set[str] = set()
    for line, change in _differences(admin, [s for s in specs if s.name in existing]):
        if alter and change is not None:
            for future in admin.incremental_alter_configs([change]).values():
                try:
                    future.result()
                except KafkaException as error:
                    raise _refused(f"alter {change.name}", error) from None
            altered.add(line)
            done.append(f"altered {line}")
        else:
            done.append(f"differs {line}")
    _await(lambda: altered.isdisjoint(line for line, _ in _differences(admin, specs)) if altered else True)
    return done


def _serves(admin: AdminClient, spec: TopicSpec) -> bool:
    """Whether brokers answer for every partition."""
    try:
        return len(end_offsets(admin, spec.name, range(spec.partitions))) == spec.partitions
    except KafkaException:
        return False


def _await(visible: Callable[[], bool]) -> None:
    """Block until brokers follow what the controller has decided, which takes them some milliseconds."""
    deadline = time.monotonic() + 10
    while not visible() and time.monotonic() < deadline:
        time.sleep(0.02)


def check_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Return a line for each way in which the cluster's topics differ; empty where all is well."""
    check_broker(settings)
    admin = make_admin(settings)
    existing = admin.list_topics(timeout=30).topics
    missing = [f"{s.name}: missing; `stoppress topics create` makes it" for s in specs if s.name not in existing]
    present = [s for s in specs if s.name in existing]
    return missing + [line for line, _ in _differences(admin, present)]


def require_topics(settings: Settings, specs: Sequence[TopicSpec]) -> None:
    """Raise :class:`TopicsDiffer` where a topic is missing, has another partition count, or would lose records.

    A topic that a broker made by itself deletes by age what a changelog has to keep. Other settings do not keep a
    worker from starting; ``topics check`` reports them.
    """
    check_broker(settings)
    admin = make_admin(settings)
    existing = admin.list_topics(timeout=30).topics
    for spec in specs:
        if spec.name not in existing:
            raise TopicsDiffer(f"topic {spec.name} is missing; run `stoppress topics create`")
        count = len(existing[spec.name].partitions)
        if count != spec.partitions:
            raise TopicsDiffer(_partition_count(spec, count))
    try:
        for spec, name, found in _settings_that_differ(admin, specs):
            if name == "message.timestamp.type" or _removes_more(name, found, spec.config[name]):
                how = "mend it with `stoppress topics create --alter`, or use another namespace"
                raise TopicsDiffer(f"{_setting(spec, name, found)}; {how}")
    except KafkaException:  # who may run a worker need not be allowed to read settings
        return


def _removes_more(name: str, found: str | None, wanted: str) -> bool:
    return name == "cleanup.policy" and not set(_policies(found)) <= set(_policies(wanted))


def _setting(spec: TopicSpec, name: str, found: str | None) -> str:
    return f"{spec.name}: {name} is {found} where the contract says {spec.config[name]}"


def _settings_that_differ(
    admin: AdminClient, specs: Sequence[TopicSpec]
) -> Iterator[tuple[TopicSpec, str, str | None]]:
    """Yield each setting that differs: of what, its name, what it is."""
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs])
    configs = {resource.name: future.result() for resource, future in described.items()}
    for spec in specs:
        for name, wanted in spec.config.items():
            found = configs[spec.name][name].value
            if _policies(found) != _policies(wanted):
                yield spec, name, found


def _partition_count(spec: TopicSpec, count: int) -> str:
    return (
        f"topic {spec.name} has {count} partitions where the settings say {spec.partitions}; "
        "set partitions (or article_partitions) to that, or use another namespace"
    )


def _differences(admin: AdminClient, specs: Sequence[TopicSpec]) -> list[tuple[str, ConfigResource | None]]:
    """Return a line for each difference, with the change that would mend it where one could."""
    if not specs:
        return []
    topics = admin.list_topics(timeout=30).topics
    lines: list[tuple[str, ConfigResource | None]] = [
        (_partition_count(spec, count), None)
        for spec in specs
        if (count := len(topics[spec.name].partitions)) != spec.partitions
    ]
    try:
        for spec, name, found in _settings_that_differ(admin, specs):
            entry = ConfigEntry(name, spec.config[name], incremental_operation=AlterConfigOpType.SET)
            change = ConfigResource(ResourceType.TOPIC, spec.name, incremental_configs=[entry])
            lines.append((_setting(spec, name, found), change))
    except KafkaException as error:
        raise _refused("tell the topics' settings", error) from None
    return lines


def _refused(what: str, error: KafkaException) -> SetupError:
    return SetupError(f"Kafka refused to {what}: {error.args[0].str()}")


def _policies(value: str | None) -> list[str]:
    """A list of policies has no order."""
    return sorted((value or "").replace(" ", "").split(","))


def describe_broker(settings: Settings) -> str:
    """Say in a line who answers at ``bootstrap_servers``. Raises :class:`BrokerUnreachable`."""
    check_broker(settings)
    cluster = make_admin(settings).list_topics(timeout=30)
    brokers = ", ".join(f"{broker.host}:{broker.port}" for broker in cluster.brokers.values())
    return f"Kafka answers at {settings.bootstrap_servers}: cluster {cluster.cluster_id} of {brokers}"
