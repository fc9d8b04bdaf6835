"""Waiting for Kafka, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from contract.errors import BrokerUnreachable, SetupError, StoppressError
from streams.health import Pulse
from streams.worker import Log

Answer = TypeVar("Answer")

_TRANSIENT = {
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError._NOENT,  # a client that has not heard of the leaders yet
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,  # a broker that starts is asked before it knows what it leads
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.CONCURRENT_TRANSACTIONS,
}
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}


def is_transient(error: KafkaError) -> bool:
    """Whether the same call may succeed later."""
    return not error.fatal() and (error.retriable() or error.code() in _TRANSIENT)


def explained(error: KafkaError, what: str) -> StoppressError:
    """Return the error to raise for Kafka's answer to ``what``; one line that says what to do."""
    if error.code() in _REFUSED:
        return SetupError(f"Kafka refuses {what}: {error.str()}; grant it in the cluster's ACLs, or mend `kafka`")
    if is_transient(error):
        return BrokerUnreachable(f"Kafka does not answer {what}: {error.str()}")
    return StoppressError(f"{what} failed: {error.str()} ({error.name()})")


def patiently(pulse: Pulse, log: Log, what: str, call: Callable[[], Answer]) -> Answer:
    """Return ``call()``, again and again while Kafka is out of reach or busy; blocks, and beats meanwhile.

    Raises :class:`~streams.worker.Stopped` on a stop, and :class:`StoppressError` for what waiting does not mend.
    """
    while True:
        pulse.beat()
        try:
            return call()
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if not is_transient(reason):
                raise explained(reason, what) from None
            log.warning("waiting_for_kafka", what=what, error=reason.str())
        except BrokerUnreachable as unreachable:
            log.warning("waiting_for_kafka", what=what, error=str(unreachable))
        pulse.wait(0.2)
