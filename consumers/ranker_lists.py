"""The ranker's tables: whose list is due and why, and what it is to be.

A list is due when its user's state changed by an event that asks for it, when an article would
enter it, when an article in it is gone or another than it was, and in a slow refresh. Nothing here
is staged: where a transaction fails, all of it is dropped and restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consumers.article_view import ArticleChange
from consumers.mending import mending_of_user
from consumers.ranker_catalogue import FreshArticles
from consumers.ranker_counts import HOLDOUT, POPULAR_LIST
from consumers.ranker_formula import formula_of
from consumers.ranker_pending import Pending
from consumers.ranker_publication import ListWriter, Publication
from consumers.ranker_quality import EVERY_MS, SAMPLE_USERS, ListQuality, list_quality
from consumers.ranker_reserved import CategoryLists, RelatedLists
from contract.errors import BadRecord, UnreadableState
from contract.messages import POPULAR, Cause, List, decode
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, UserRecord, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import hash64
from encoders.interest import InterestModel, long_and_short, spread_of
from ranking.catalogue import Catalogue
from ranking.feedback import Adapted
from ranking.ranking import Formula, concerned, rank
from ranking.reader_table import NEVER, OTHER, ReaderTable
from ranking.readers import Past, Readers
from ranking.reranker import ClickModel
from streams.record import Record, text_key
from streams.restore import Restore
from streams.worker import Log

BATCH_USERS = 256
REFRESH_USERS = 128
RESTORED_AT_ONCE = 1000


class RankerLists:
    """Users of the owned partitions and their lists."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        model: InterestModel,
        fresh: FreshArticles,
        formula: Formula | None = None,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._fresh = fresh
        self._formula = formula or formula_of(settings)
        self._readers = ReaderTable(model.dims, settings.list_length)
        self._owned: set[int] = set()
        self._pending = Pending()
        self._forgotten: dict[str, int] = {}
        self._popular_partition = partition_of(POPULAR.encode(), settings.partitions)
        self._popular_at = 0
        self._quality_at = 0
        self._restored_since: int | None = None
        self._writer = ListWriter(topics.generation, settings.explain)
        self._categories = CategoryLists(settings, fresh, self._formula, self._writer)
        self._related = RelatedLists(settings, fresh, self._formula, self._writer)

    def user_count(self) -> int:
        return len(self._readers)

    def article_count(self) -> int:
        """How many articles may be listed now."""
        return len(self._fresh.catalogue)

    def adapt(self, adapted: Adapted) -> None:
        """Rank personal lists by what feedback says, from the next ranking on."""
        self._formula = self._formula.adapted(adapted, self._settings.exploration)

    def serve(self, model: ClickModel | None) -> None:
        """Rank by ``model`` from the next ranking on, None: by the hand-made formula; nobody waits for that."""
        self._formula = replace(self._formula, model=model)
        self._categories.serve(model)
        self._related.serve(model)

    def as_listed(self, user_ids: Sequence[str]) -> tuple[Readers, NDArray[np.uint64], Catalogue, Formula]:
        """Return users as they are now, the hashes of what is in their lists [u, k], and what they are ranked by.

        Whoever is not known has a list like no other, of :data:`ranking.reader_table.OTHER`.
        """
        rows = [self._readers.row(user_id) for user_id in user_ids]
        known = [0 if row is None else row for row in rows]
        listed = np.where([[row is not None] for row in rows], self._readers.listed[known], OTHER)
        return self._readers.readers(known), listed, self._fresh.catalogue, self._formula

    def put_off(self) -> int:
        """How many users wait for their ranking."""
        return len(self._pending)

    def waiting(self, now_ms: int) -> dict[str, tuple[int, float]]:
        """Return by kind of cause how many wait for their ranking, and for how many seconds the first of them has.

        Whoever is to be refreshed waits since that was due, who was restored since this was first asked after it.
        """
        refresh_ms = round(self._settings.refresh_seconds * 1000)
        restored, overdue, since = self._readers.unranked(now_ms - refresh_ms)
        if not restored or self._restored_since is None:
            self._restored_since = now_ms if restored else None
        return self._pending.put_off(now_ms) | {
            "start": (restored, (now_ms - (self._restored_since or now_ms)) / 1000),
            "refresh": (overdue, (now_ms - refresh_ms - since) / 1000 if overdue else 0.0),
            "related": self._related.put_off(now_ms),
        }

    def quality(self, now_ms: int) -> ListQuality | None:
        """Return what a sample of the users' present lists is like; None until ten seconds after the last time."""
        if now_ms < self._quality_at:
            return None
        self._quality_at = now_ms + EVERY_MS
        readers = self._readers
        rows = np.flatnonzero((readers.listed != OTHER).any(axis=1) & (readers.seeds != 0))
        if len(rows) > SAMPLE_USERS:
            rows = np.random.default_rng(now_ms).choice(rows, SAMPLE_USERS, replace=False)
        fallback = ~(readers.queries[rows].any(axis=(1, 2)) & readers.personal[rows])
        return list_quality(readers.listed[rows], fallback, self._fresh.catalogue, now_ms)

    def restore(self, restore: Restore) -> None:
        """Read users up to their committed offsets, and their present lists; all are ranked soon. Blocks.

        Where compaction took a state that was ranked, its successor is still to come, or its user was forgotten.
        """
        still_to_come: dict[str, bool] = {}
        states: dict[str, tuple[int, UserRecord]] = {}

        def put_user(record: Record) -> None:
            if record.offset() >= restore.committed[record.partition()]:
                still_to_come[text_key(record)] = record.value() is not None
            else:
                self._collect(record, states)
            if len(states) >= RESTORED_AT_ONCE:
                self._put_users(states, ranked_at=0)

        restore.read(self._topics.user_vectors, put_user, mending_of_user)
        self._put_users(states, ranked_at=0)
        restore.read(self._topics.recommendations, lambda record: self._put_list(record, still_to_come))
        self._owned.update(restore.committed)
        self._categories.own(restore.committed)
        self._related.own(restore.committed)
        self.drop(restore.damaged)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget everything about these partitions."""
        gone = set(partitions)
        self._readers.drop_partitions(gone)
        self._owned -= gone
        self._categories.drop(gone)
        self._related.drop(gone)
        self._pending.keep(lambda user_id: self._readers.row(user_id) is not None)
        self._forgotten = {u: p for u, p in self._forgotten.items() if p not in gone}

    def take_users(self, records: Iterable[Record], now_ms: int) -> None:
        """Take in changed user states; a cause in them makes the list due."""
        states: dict[str, tuple[int, UserRecord]] = {}
        for record in records:
            try:
                user = self._collect(record, states)
            except UnreadableState as error:  # the list stays as it is until the users worker has mended the state
                place = f"{record.topic()}[{record.partition()}]@{record.offset()}"
                Log("ranker").error("unreadable_state", record=f"{place}: {error}")
                continue
            if user is not None and user.windows.cause is not None:
                self._pending.add(text_key(record), user.windows.cause)
        self._put_users(states, ranked_at=now_ms)

    def take_articles(self, changes: Sequence[ArticleChange], now_ms: int) -> None:
        """Find the users whom publications and withdrawals concern."""
        changed = self._fresh.refresh(changes, now_ms)
        self._categories.take_articles(changed)
        self._related.take_articles(changed)
        for causes in (changed.left, changed.altered):
            if causes:
                self._trigger_holders(causes)
        if changed.entered or changed.altered:
            self._trigger(sorted([*changed.entered, *changed.altered], key=lambda cause: cause.at), now_ms)

    def due(self, now_ms: int) -> list[tuple[str, Cause]]:
        """Return whom to rank now, the most urgent first; they wait no longer."""
        popular = self._popular_due(now_ms)
        due = popular + self._pending.take(BATCH_USERS)
        if len(due) < BATCH_USERS:
            taken = {user_id for user_id, _ in due}
            due += [(user_id, cause) for user_id, cause in self._slow_refresh(now_ms) if user_id not in taken]
        return due

    def rank(self, due: Sequence[tuple[str, Cause]], now_ms: int) -> Iterator[Publication]:
        """Rank users and yield the lists that are not as they were, tombstones first."""
        for user_id, partition in self._forgotten.items():
            yield Publication(user_id, partition, None)
        self._forgotten = {}
        catalogue = self._fresh.catalogue
        known = [(row, cause) for user_id, cause in due if (row := self._readers.row(user_id)) is not None]
        known = [(row, cause) for row, cause in known if self._readers.ranked_at[row] != NEVER]
        if not known:
            return
        rows = [row for row, _ in known]
        readers = self._readers.readers(rows)
        ranked = rank(readers, catalogue, self._formula, now_ms)
        self._readers.note(
            rows, ranked.trigger, ranked.entry, ranked.entries, catalogue.categories[0], ranked.likings, ranked.unread,
            now_ms,
        )  # fmt: skip
        hashes = np.append(catalogue.hashes, np.uint64(0))[ranked.places]
        changed = np.flatnonzero(self._readers.relist(rows, hashes))
        cold = np.logical_not(readers.queries[changed].any(axis=(1, 2)) & readers.personal[changed])
        lists = np.where(readers.personal, "", np.where(readers.seeds == 0, POPULAR_LIST, HOLDOUT))[changed].tolist()
        all_items = self._writer.items(ranked, catalogue, changed, lists)
        for i, items, fallback in zip(changed, all_items, cold.tolist(), strict=True):
            row, cause = known[i]
            user_id = self._readers.ids[row]
            result = self._writer.compose(user_id, items, cause, catalogue, now_ms, fallback=fallback)
            yield Publication(user_id, int(self._readers.partition[row]), result)

    def rank_reserved(self, now_ms: int, *, busy: bool) -> Iterator[Publication]:
        """Rank what is nobody's, and yield what is not as it was; while ``busy`` with users, only the most urgent."""
        yield from self._categories.rank(now_ms, busy=busy)
        yield from self._related.rank(now_ms, busy=busy)

    def _collect(self, record: Record, states: dict[str, tuple[int, UserRecord]]) -> UserRecord | None:
        """Note the state in a record, to be put with others; forget the user at once where there is none."""
        if record.key() == PARTITION_KEY:
            return None
        user_id, value = text_key(record), record.value()
        if value is None:
            states.pop(user_id, None)
            self._forget(user_id, record.partition())
            return None
        user = decode_user(value)
        if len(user.numbers) != 4 * self._model.state_size or not np.isfinite(user.vector).all():
            Log("ranker").error(
                "unusable_state", record=f"{record.topic()}[{record.partition()}]@{record.offset()}",
                what=f"a state here has {self._model.state_size} finite numbers; something else wrote this one",
            )  # fmt: skip
            return None
        states[user_id] = record.partition(), user
        return user

    def _put_users(self, states: dict[str, tuple[int, UserRecord]], ranked_at: int) -> None:
        """Take over ``states`` and clear them; ``ranked_at`` is for users who are new here and have no list."""
        if not states:
            return
        rows = [self._add(user_id, partition) for user_id, (partition, _) in states.items()]
        users = [user for _, user in states.values()]
        vectors = np.stack([user.vector for user in users])
        pasts = [Past.of(user.windows) for user in users]
        self._readers.put(rows, pasts, long_and_short(self._model.query(vectors)), spread_of(self._model, vectors))
        new = [row for row in rows if self._readers.ranked_at[row] == NEVER]
        self._readers.ranked_at[new] = np.where((self._readers.listed[new] != OTHER).any(axis=1), 0, ranked_at)
        states.clear()

    def _add(self, user_id: str, partition: int) -> int:
        row = self._readers.row(user_id)
        if row is not None:
            return row
        seed = hash64(user_id)
        return self._readers.add(user_id, partition, seed=seed, personal=not self._fresh.rules.held_out(seed))

    def _add_popular(self, partition: int) -> int:
        return self._readers.add(POPULAR, partition, personal=False)

    def _forget(self, user_id: str, partition: int) -> None:
        self._pending.discard(user_id)
        if self._readers.drop(user_id) and partition in self._owned:
            self._forgotten[user_id] = partition

    def _put_list(self, record: Record, still_to_come: dict[str, bool]) -> None:
        try:
            user_id, value = text_key(record), record.value()
        except UnreadableState:
            return  # nobody's list
        for reserved in (self._categories, self._related):
            if user_id.startswith(reserved.prefix):
                reserved.put(user_id.removeprefix(reserved.prefix), record.partition(), value)
                return
        row = self._readers.row(user_id)
        if value is None:
            if row is not None:
                self._readers.listed[row] = OTHER
            self._forgotten.pop(user_id, None)
            return
        if user_id == POPULAR:
            row = self._add_popular(record.partition())
            self._readers.ranked_at[row] = 0
        elif row is None and still_to_come.get(user_id):
            row = self._add(user_id, record.partition())  # not to be ranked before its state is here
        elif row is None:
            if not user_id.startswith("~"):
                self._forgotten[user_id] = record.partition()
            return
        self._readers.listed[row] = self._listed(value)

    def _listed(self, value: bytes) -> NDArray[np.uint64]:
        """Return what a published list says, [k]; it is none of ours where it is longer or cannot be read."""
        length = self._settings.list_length
        try:
            hashes = [hash64(item.article_id) for item in decode(List, value).items]
        except BadRecord:
            return np.full(length, OTHER)
        if len(hashes) > length:
            return np.full(length, OTHER)
        return np.array(hashes + [0] * (length - len(hashes)), np.uint64)

    def _trigger_holders(self, causes: Sequence[Cause]) -> None:
        """Let those wait whose list holds one of the articles that ``causes`` name, oldest first."""
        by_hash = {hash64(cause.id): cause for cause in causes}
        for row in self._readers.holding(np.fromiter(by_hash, np.uint64, len(by_hash))):
            held = [by_hash[h] for h in self._readers.listed[row].tolist() if h in by_hash]
            self._pending.add(self._readers.ids[row], min(held, key=lambda cause: cause.at), urgent=True)

    def _trigger(self, causes: Sequence[Cause], now_ms: int) -> None:
        """Let those wait whose list one of the articles that ``causes`` name would enter, oldest first."""
        catalogue = self._fresh.catalogue
        places = catalogue.places(np.array([hash64(cause.id) for cause in causes], np.uint64))
        readers = self._readers
        likings = readers.likings(catalogue.category[places].tolist())
        labels = [catalogue.labels.of(int(place)) for place in places]
        averse = [readers.averse(of, int(catalogue.language[place])) for of, place in zip(labels, places, strict=True)]
        for number, rows in enumerate(averse):
            likings[number, rows] = np.nan
        first = concerned(readers.standing(), likings, catalogue, places, self._formula, now_ms)
        for row in np.flatnonzero(first >= 0):
            self._pending.add(self._readers.ids[row], causes[first[row]])
        for of, rows, cause in zip(labels, averse, causes, strict=True):
            for follower in readers.followers(of).difference(rows.tolist()):
                self._pending.add(readers.ids[follower], cause)

    def _popular_due(self, now_ms: int) -> list[tuple[str, Cause]]:
        """The popular list, which many see, waits for nobody."""
        if self._popular_partition not in self._owned or now_ms < self._popular_at or not len(self._fresh.catalogue):
            return []
        self._popular_at = now_ms + round(self._settings.popular_seconds * 1000)
        self._readers.ranked_at[self._add_popular(self._popular_partition)] = 0
        return [(POPULAR, Cause(kind="refresh", id="", at=now_ms))]

    def _slow_refresh(self, now_ms: int) -> list[tuple[str, Cause]]:
        """Those not ranked since they were restored, and those ranked longest ago."""
        readers = self._readers
        overdue = readers.overdue(now_ms - round(self._settings.refresh_seconds * 1000), REFRESH_USERS)
        return [
            (user_id, Cause(kind="start" if started else "refresh", id="", at=now_ms))
            for user_id, started in (
                (readers.ids[row], readers.ranked_at[row] == 0 and readers.ids[row] != POPULAR) for row in overdue
            )
        ]
