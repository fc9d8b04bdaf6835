"""``topics create`` and ``topics check`` on a real Kafka."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from contract.errors import SetupError, TopicsDiffer
from contract.settings import Settings
from contract.topics import Topics, TopicSpec
from streams.admin import check_topics, create_topics, require_topics
from streams.clients import make_admin, make_producer
from tests.command import refused, stoppress
from tests.pipeline import await_true


@pytest.fixture
def topics(settings: Settings) -> Topics:
    return Topics(settings, "0a1b2c3d")


@pytest.fixture
def admin(settings: Settings) -> AdminClient:
    return make_admin(settings)


def partitions_of(admin: AdminClient, topic: str) -> int:
    return len(admin.list_topics(timeout=20).topics[topic].partitions)


def config_of(admin: AdminClient, topic: str) -> dict[str, str]:
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in answer.result(20).items()}


def set_config(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(20)
    await_true(lambda: config_of(admin, topic)[name] == value, f"{topic} has {name}={value}")


def create(admin: AdminClient, topic: str, partitions: int) -> None:
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    await_true(lambda: topic in admin.list_topics(timeout=20).topics, f"{topic} is there")


def test_what_is_created_is_what_the_contract_says(settings: Settings, topics: Topics, admin: AdminClient) -> None:
    specs = topics.specs()
    assert create_topics(settings, specs) == [f"created {spec.name}" for spec in specs]
    for spec in specs:
        assert partitions_of(admin, spec.name) == spec.partitions
        config = config_of(admin, spec.name)
        assert {name: config[name] for name in spec.config} == spec.config
    assert check_topics(settings, specs) == []
    require_topics(settings, specs)


def test_a_second_call_has_nothing_to_do(settings: Settings, topics: Topics) -> None:
    create_topics(settings, topics.specs())
    assert create_topics(settings, topics.specs()) == []


def test_only_what_is_missing_is_created(settings: Settings, topics: Topics) -> None:
    first, *others = topics.specs()
    create_topics(settings, [first])
    assert check_topics(settings, topics.specs()) == [
        f"{spec.name}: missing; `stoppress topics create` makes it" for spec in others
    ]
    assert create_topics(settings, topics.specs()) == [f"created {spec.name}" for spec in others]


def test_a_setting_that_differs_is_told_and_changed_only_when_asked(
    settings: Settings, topics: Topics, admin: AdminClient
) -> None:
    specs = topics.specs()
    create_topics(settings, specs)
    set_config(admin, topics.user_vectors, "cleanup.policy", "delete")
    set_config(admin, topics.user_vectors, "retention.bytes", "1000000")
    line = f"{topics.user_vectors}: cleanup.policy is delete where the contract says compact"
    assert check_topics(settings, specs) == [line]
    assert create_topics(settings, specs) == [f"differs {line}"]
    assert config_of(admin, topics.user_vectors)["cleanup.policy"] == "delete"
    assert create_topics(settings, specs, alter=True) == [f"altered {line}"]
    assert check_topics(settings, specs) == []
    config = config_of(admin, topics.user_vectors)
    assert config["cleanup.policy"] == "compact"
    assert config["retention.bytes"] == "1000000", "a setting that the contract does not name is left alone"


def test_the_order_of_cleanup_policies_is_no_difference(settings: Settings, topics: Topics, admin: AdminClient) -> None:
    create_topics(settings, topics.specs())
    set_config(admin, topics.articles, "cleanup.policy", "delete,compact")
    assert check_topics(settings, topics.specs()) == []


def test_a_wrong_partition_count_is_told_and_never_changed(
    settings: Settings, topics: Topics, admin: AdminClient
) -> None:
    create(admin, topics.user_events, settings.partitions + 1)
    wrong = f"topic {topics.user_events} has 5 partitions where the settings say 4"
    lines = create_topics(settings, topics.specs(), alter=True)
    assert [line for line in lines if wrong in line] != []
    assert all(line.startswith(("created", "altered")) or wrong in line for line in lines)
    (line,) = check_topics(settings, topics.specs())
    assert line.startswith(wrong)
    assert "set partitions (or article_partitions) to that, or use another namespace" in line
    assert partitions_of(admin, topics.user_events) == 5
    with pytest.raises(TopicsDiffer, match=wrong):
        require_topics(settings, topics.specs())


def test_partitions_that_somebody_adds_later_are_noticed(
    settings: Settings, topics: Topics, admin: AdminClient
) -> None:
    create_topics(settings, topics.specs())
    require_topics(settings, topics.specs())
    admin.create_partitions([NewPartitions(topics.recommendations, 6)])[topics.recommendations].result(20)
    await_true(lambda: partitions_of(admin, topics.recommendations) == 6, "the partitions are there")
    with pytest.raises(TopicsDiffer, match=f"{topics.recommendations} has 6 partitions where the settings say 4"):
        require_topics(settings, topics.specs())


@pytest.mark.parametrize(
    ("made", "config", "says"),
    [
        ("user_vectors", {"cleanup.policy": "delete"}, "cleanup.policy is delete where the contract says compact"),
        ("user_events", {"message.timestamp.type": "CreateTime"}, "message.timestamp.type is CreateTime"),
        ("user_events", {"cleanup.policy": "compact"}, "cleanup.policy is compact where the contract says delete"),
    ],
)
def test_a_topic_that_would_lose_or_misdate_records_keeps_a_worker_from_starting(
    settings: Settings, topics: Topics, made: str, config: dict[str, str], says: str
) -> None:
    """As a topic does that the broker or somebody else made before ``topics create`` was called."""
    name = getattr(topics, made)
    create_topics(settings, [replace(s, config=s.config | config) for s in topics.specs() if s.name == name])
    create_topics(settings, topics.specs())
    with pytest.raises(TopicsDiffer, match=f"^{re.escape(name)}: {says}.*--alter"):
        require_topics(settings, topics.specs())
    create_topics(settings, topics.specs(), alter=True)
    require_topics(settings, topics.specs())


def test_a_worker_is_told_which_topic_is_missing(settings: Settings, topics: Topics) -> None:
    with pytest.raises(TopicsDiffer, match=f"topic {topics.articles} is missing; run `stoppress topics create`"):
        require_topics(settings, topics.specs())


def test_what_kafka_refuses_is_one_sentence(settings: Settings, topics: Topics) -> None:
    three = settings.model_copy(update={"replication_factor": 3})
    with pytest.raises(SetupError, match=rf"^Kafka refused to create {topics.articles}: .*[Rr]eplication factor"):
        create_topics(three, topics.specs())
    nonsense = TopicSpec(topics.articles, 1, {"cleanup.policy": "shred"})
    with pytest.raises(SetupError, match=rf"^Kafka refused to create {topics.articles}: .*shred"):
        create_topics(settings, [nonsense])


def test_what_kafka_refuses_to_alter_is_one_sentence(settings: Settings, topics: Topics) -> None:
    create_topics(settings, topics.specs())
    events = next(spec for spec in topics.specs() if spec.name == topics.user_events)
    nonsense = replace(events, config={"retention.ms": "-5"})
    with pytest.raises(SetupError, match=f"^Kafka refused to alter {topics.user_events}: "):
        create_topics(settings, [nonsense], alter=True)


@pytest.mark.parametrize("topic", ["articles", "recommendations"])
def test_kafka_takes_no_record_without_a_key_where_the_newest_of_each_key_counts(
    settings: Settings, topics: Topics, topic: str
) -> None:
    create_topics(settings, topics.public())
    refusals: list[KafkaError | None] = []
    producer: Producer = make_producer(settings, name="test")
    producer.produce(getattr(topics, topic), b"{}", on_delivery=lambda error, _: refusals.append(error))
    producer.flush(20)
    assert [error and error.code() for error in refusals] == [KafkaError.INVALID_RECORD]


def test_the_commands_say_what_they_did_and_found(settings: Settings, encoder_path: object) -> None:
    missing = stoppress(settings, "topics", "check")
    assert (missing.code, missing.err) == (1, "")
    assert f"{settings.namespace}articles: missing; `stoppress topics create` makes it" in missing.lines

    created = stoppress(settings, "topics", "create")
    assert (created.code, created.err) == (0, "")
    assert f"created {settings.namespace}user-events" in created.lines
    assert len(created.lines) == len(missing.lines)

    again = stoppress(settings, "topics", "create")
    assert (again.code, again.out, again.err) == (0, "nothing to do: all topics are as they should be\n", "")
    checked = stoppress(settings, "topics", "check")
    assert (checked.code, checked.out, checked.err) == (0, "all topics are as they should be\n", "")

    longer = settings.model_copy(update={"event_retention_days": 8.0})
    line = f"{settings.namespace}user-events: retention.ms is 604800000 where the contract says 691200000"
    differs = stoppress(longer, "topics", "check")
    assert (differs.code, differs.lines[0]) == (1, line)
    kept = stoppress(longer, "topics", "create")
    assert (kept.code, kept.lines[0]) == (1, f"differs {line}")
    assert kept.lines[-1].startswith("nothing that was there was changed; `stoppress topics create --alter`")
    altered = stoppress(longer, "topics", "create", "--alter")
    assert (altered.code, altered.lines[0]) == (0, f"altered {line}")
    assert stoppress(longer, "topics", "check").code == 0


def test_a_refusal_of_kafka_ends_the_command_with_one_line(settings: Settings, encoder_path: object) -> None:
    three = settings.model_copy(update={"replication_factor": 3})
    assert "Kafka refused to create" in refused(stoppress(three, "topics", "create"))
