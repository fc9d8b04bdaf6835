"""A Kafka that asks for TLS or SASL: what passes through, and the one line for what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.settings import Settings, load
from tests.command import Answer, refused, stoppress
from tests.secured_broker import PASSWORD, USER, SecuredBroker

SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with SecuredBroker.start(tmp_path_factory.mktemp("secured"), die_with_parent=True) as broker:
        yield broker


def settings_for(address: str, encoder: object, kafka: dict[str, str]) -> Settings:
    values = {"bootstrap_servers": address, "encoder": encoder, "kafka": json.dumps(kafka)}
    return load([f"{name}={value}" for name, value in values.items()], environ={})


@pytest.mark.parametrize("how", ["sasl", "tls"])
def test_tls_and_sasl_pass_through(secured: SecuredBroker, encoder_path: object, how: str) -> None:
    kafka = {
        "sasl": SASL | {"sasl.password": PASSWORD},
        "tls": {"security.protocol": "SSL", "ssl.ca.location": str(secured.certificate)},
    }[how]
    settings = settings_for(getattr(secured, how), encoder_path, kafka | {"client.id": how})
    settings = settings.model_copy(update={"namespace": f"{how}."})
    created = stoppress(settings, "topics", "create")
    assert (created.code, created.err) == (0, "")
    assert f"created {how}.user-events" in created.lines
    listed = stoppress(settings, "dead-letters", "list")
    assert (listed.code, listed.out, listed.err) == (0, "0 dead letters\n", "")


MISSING: dict[str, tuple[str, dict[str, str], str]] = {
    "no SASL": ("sasl", {}, "as one does that asks for TLS or SASL"),
    "no TLS": ("tls", {}, "as one does that asks for TLS or SASL"),
    "a wrong password": ("sasl", SASL | {"sasl.password": "wrong"}, "Invalid username or password"),
    "a wrong mechanism": ("sasl", SASL | {"sasl.mechanism": "SCRAM-SHA-256", "sasl.password": PASSWORD}, "mechanism"),
    "an unknown certificate": (
        "tls",
        {"security.protocol": "SSL"},
        "verify that ssl.ca.location is correctly configured",
    ),
    "TLS where there is none": ("bootstrap_servers", {"security.protocol": "SSL"}, "to a PLAINTEXT broker listener?"),
}


@pytest.fixture(scope="module")
def answers(secured: SecuredBroker, encoder_path: object) -> dict[str, Answer]:
    """What the users worker says to each; all at once, for each waits seconds for Kafka."""

    def start(missing: tuple[str, dict[str, str], str]) -> Answer:
        listener, kafka, _ = missing
        return stoppress(settings_for(getattr(secured, listener), encoder_path, kafka), "run", "users")

    with ThreadPoolExecutor(len(MISSING)) as pool:
        return dict(zip(MISSING, pool.map(start, MISSING.values()), strict=True))


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_told_in_one_line(secured: SecuredBroker, answers: dict[str, Answer], missing: str) -> None:
    listener, _, says = MISSING[missing]
    said = refused(answers[missing])
    assert said.startswith(f"no Kafka broker answers at {getattr(secured, listener)} (")
    assert says in said
    assert "TLS and SASL in STOPPRESS_KAFKA" in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("kafka", "says"),
    [
        ({"nonsense": "1"}, 'No such configuration property: "nonsense"'),
        ({"security.protocol": "SECRET"}, 'Invalid value "SECRET" for configuration property "security.protocol"'),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere"}, "ssl.ca.location failed"),
    ],
)
def test_a_property_that_cannot_be_used_is_told_in_one_line(
    encoder_path: object, kafka: dict[str, str], says: str
) -> None:
    said = refused(stoppress(settings_for("127.0.0.1:1", encoder_path, kafka), "topics", "check"))
    assert said.startswith("kafka cannot be used: ")
    assert says in said
