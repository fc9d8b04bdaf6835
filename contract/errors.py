"""The exception tree.

    StoppressError
    ├── SetupError              what a start needs is wrong or missing: one line, exit code 2
    │   ├── SettingsError       a setting is unknown or wrong
    │   ├── BrokerUnreachable   no Kafka answers at the address
    │   ├── TopicsDiffer        a topic is missing or has another partition count
    │   ├── PortInUse           the address to listen on is taken
    │   ├── EncoderUnusable     no encoder at the path, or its files do not match their manifest
    │   ├── InterestModelUnusable  no interest model at the path, not its files, or trained for another encoder
    │   └── ClickModelUnusable  no click model at the path, not its files, or of other features than the ranker's
    ├── BadRecord               a record that cannot be used: becomes a dead letter
    ├── UnreadableState         a state record that cannot be read
    │   └── NewerState          a newer version wrote it
    ├── TransactionFailed       outcome unknown or aborted: state is to be read again
    └── Fenced                  another worker took this one's place: exit code 1

Every message says what was wrong and what to do about it.
"""

from __future__ import annotations


class StoppressError(Exception):
    """Whatever stoppress raises on purpose. ``str(error)`` is one line for people."""

    exit_code = 1


class SetupError(StoppressError):
    """What a start needs is wrong or missing."""

    exit_code = 2


class SettingsError(SetupError):
    """A setting is unknown or has a value that cannot be used."""


class BrokerUnreachable(SetupError):
    """No Kafka broker answers at ``bootstrap_servers``."""


class TopicsDiffer(SetupError):
    """A topic is missing or is not what the contract asks for."""


class PortInUse(SetupError):
    """The address a service is to listen on is taken."""


class EncoderUnusable(SetupError):
    """There is no encoder at the path, or its files do not match their manifest."""


class InterestModelUnusable(SetupError):
    """There is no interest model at the path, its files are not its manifest's, or it is for other vectors."""


class ClickModelUnusable(SetupError):
    """There is no click model at the path, its files are not its manifest's, or it knows other features."""


class BadRecord(StoppressError):
    """A record that cannot be used. ``reason`` is a stable code, ``detail`` says what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnreadableState(StoppressError):
    """A state record that is damaged or was written by a newer version."""


class NewerState(UnreadableState):
    """A state record that a newer version wrote."""


class TransactionFailed(StoppressError):
    """A transaction was aborted or its outcome is unknown; state is to be read again."""


class Fenced(StoppressError):
    """Another process with the same worker and slot has taken over; this one must stay down."""
