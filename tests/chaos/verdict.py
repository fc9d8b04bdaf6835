"""What a comparison found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Verdict:
    """How the workers' account and states differ from the log's; ``findings`` are a few of the differences in words.

    ``..._compared`` are how many versions, users, statistics and co-reads were held against the fold; ``aborted`` is
    by topic how many records no transaction committed.
    """

    events: int = 0
    lost: int = 0
    duplicated: int = 0
    misordered: int = 0
    mismatched_keys: int = 0
    states_seen: int = 0
    versions_compared: int = 0
    users_compared: int = 0
    statistics_compared: int = 0
    co_reads_compared: int = 0
    merges: int = 0
    absorbs: int = 0
    dead_letters: int = 0
    users_limited: int = 0
    aborted: dict[str, int] = field(default_factory=dict)
    aborted_seen: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.misordered or self.mismatched_keys or self.aborted_seen)

    def find(self, what: str) -> None:
        if len(self.findings) < 20:
            self.findings.append(what)

    def mismatch(self, key: str, what: str) -> None:
        self.mismatched_keys += 1
        self.find(f"{key}: {what}")

    def disorder(self, what: str) -> None:
        self.misordered += 1
        self.find(what)
