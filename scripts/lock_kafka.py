"""Write the lock of Kafka's jars: ``python scripts/lock_kafka.py 4.3.0`` resolves, fetches and hashes them."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from streams.local_broker.jars import LOCK, maven_context


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        context = maven_context(Path(scratch))

        def resolve(coordinate: str, *, transitive: bool) -> list[Any]:
            own, others = context.resolver.resolve([context.create_dependency(coordinate)], transitive=transitive)
            return [dependency.artifact for dependency in (own + others if transitive else own)]

        # Resolved apart: together with Kafka's own, log4j's dependency management would change Kafka's versions.
        artifacts = resolve(f"org.apache.kafka:kafka_2.13:{version}", transitive=True)
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
    LOCK.write_text("\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(artifacts)} jars of Kafka {version}")


if __name__ == "__main__":
    main(sys.argv[1])
