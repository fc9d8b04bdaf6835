"""Whether topics are still the ones that they were: a topic that was made anew has another id."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from contract.errors import TopicsDiffer
from streams.health import Pulse
from streams.patience import patiently
from streams.worker import Log


class TopicIds:
    """The ids of ``topics`` as they are now; blocks until Kafka answers.

    Raises :class:`TopicsDiffer` where one is missing.
    """

    def __init__(self, admin: AdminClient, topics: Sequence[str], pulse: Pulse, log: Log) -> None:
        self._admin = admin
        self._topics = topics
        self._asked: dict[str, Future[TopicDescription]] = {}
        self._ids = patiently(pulse, log, "topic ids", lambda: self._answers(self._ask()))

    def check(self) -> None:
        """Look at the answer to what the last check asked, and ask again; does not block.

        Raises :class:`TopicsDiffer` where a topic was deleted or made anew since.
        """
        answered = {topic: future for topic, future in self._asked.items() if future.done()}
        if len(answered) < len(self._asked):
            return
        self._asked = self._ask()
        try:
            ids = self._answers(answered)
        except KafkaException:  # out of reach just now
            return
        for topic, topic_id in ids.items():
            if topic_id != self._ids[topic]:
                raise TopicsDiffer(
                    f"topic {topic} was deleted and made anew under this worker; what was folded from it or kept in "
                    "it no longer fits: delete the topics of the generation too, or use another namespace"
                )

    def _ask(self) -> dict[str, Future[TopicDescription]]:
        asked: dict[str, Future[TopicDescription]] = self._admin.describe_topics(
            TopicCollection(list(self._topics)), request_timeout=5.0
        )
        return asked

    def _answers(self, futures: dict[str, Future[TopicDescription]]) -> dict[str, str]:
        ids = {}
        for topic, future in futures.items():
            try:
                ids[topic] = str(future.result().topic_id)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise TopicsDiffer(f"topic {topic} is missing; run `stoppress topics create`") from None
                raise
        return ids
