"""Which of Kafka's answers are worth waiting for."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from contract.errors import BrokerUnreachable
from streams.patience import explained, is_transient


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH])
def test_a_broker_that_does_not_know_its_leaders_yet_is_waited_for(code: int) -> None:
    assert is_transient(KafkaError(code))
    assert isinstance(explained(KafkaError(code), "init_transactions"), BrokerUnreachable)
