"""Write the locks of Kafka's jars: ``python -m scripts.lock_kafka 4.2.2`` resolves, fetches and hashes them.

One lock is the broker's, the other Kafka Streams', which ``make bench-users`` holds stoppress against.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from streams.local_broker.jars import LOCK, maven_context

STREAMS_LOCK = Path("bench/users/kafka_streams.lock.toml")


def main(version: str) -> None:
    write_lock(LOCK, version, f"org.apache.kafka:kafka_2.13:{version}", logging=True)
    write_lock(STREAMS_LOCK, version, f"org.apache.kafka:kafka-streams:{version}")


def write_lock(path: Path, version: str, coordinate: str, *, logging: bool = False) -> None:
    """Lock ``coordinate`` with all it needs; ``logging`` adds the binding without which Kafka logs nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        context = maven_context(Path(scratch))

        def resolve(coordinate: str, *, transitive: bool) -> list[Any]:
            own, others = context.resolver.resolve([context.create_dependency(coordinate)], transitive=transitive)
            return [dependency.artifact for dependency in (own + others if transitive else own)]

        # Resolved apart: together with Kafka's own, log4j's dependency management would change Kafka's versions.
        artifacts = resolve(coordinate, transitive=True)
        if logging:
            log4j = next(a.version for a in artifacts if a.artifactId == "log4j-core")
            artifacts += resolve(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}", transitive=False)
        lines = [f'kafka = "{version}"']
        for artifact in sorted(artifacts, key=lambda a: (a.groupId, a.artifactId)):
            content = artifact.resolve().read_bytes()
            lines += [
                "",
                "[[jar]]",
                f'coordinate = "{artifact.groupId}:{artifact.artifactId}:{artifact.version}"',
                f"size = {len(content)}",
                f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
            ]
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.name}: {len(artifacts)} jars of Kafka {version}")


if __name__ == "__main__":
    main(sys.argv[1])
