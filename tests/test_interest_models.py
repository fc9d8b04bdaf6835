"""The contract that every interest model keeps, ``decay`` and the trained ones alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import InterestModelUnusable
from contract.messages import List, ShownItem, decode
from contract.records import decode_article
from contract.settings import load
from encoders.decay import Decay
from encoders.interest import InterestModel, interest_model, long_and_short, spread_of
from encoders.manifest import File, describe_file, generation_of, read_manifest
from encoders.onnx_interest import QUERY_FILE, STEP_FILE, InterestManifest, OnnxInterest
from streams.local_broker import LocalBroker
from tests.pipeline import pipeline_on, states_of
from tests.torch_environment import written_with_torch

ROOT = Path(__file__).parents[1]
HOUR = 3_600_000.0
Floats = NDArray[np.float32]
FLOAT32_ERROR = 2e-4


TRAINED = ("gru", "transformer", "vae", "gan")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little trained on synthetic reads: tests/tiny_interest_models.py."""
    return written_with_torch("tiny_interest_models.py", tmp_path_factory.mktemp("interest"), "contract")


@pytest.fixture(params=["decay", *TRAINED])
def model(request: pytest.FixtureRequest) -> InterestModel:
    if request.param == "decay":
        return Decay(16, 720 * HOUR, 2 * HOUR)
    folder: Path = request.getfixturevalue("trained")
    return OnnxInterest.load(folder / request.param)


def articles(model: InterestModel, count: int, seed: int = 1) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((count, model.dims))
    units: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


class Log:
    """Events of some users: who, what, when (ms), how much it weighs."""

    def __init__(self, model: InterestModel, users: int, events: int, seed: int = 2) -> None:
        draw = np.random.default_rng(seed)
        self.users = draw.integers(users, size=events)
        self.articles = articles(model, events, seed)
        self.at = np.sort(draw.integers(0, 48 * int(HOUR), size=events)).astype(np.float64)
        self.weight = draw.choice([1.0, 2.0, 0.25, -1.0, -0.01], size=events, p=[0.6, 0.1, 0.1, 0.1, 0.1])


def fold(model: InterestModel, states: Floats, times: NDArray[np.float64], log: Log, some: slice) -> Floats:
    """Fold some events; ``times`` of the states are moved on."""
    users, at = log.users[some], log.at[some]
    before = times.copy()
    np.maximum.at(times, users, at)
    return model.fold(states, times - before, users, log.articles[some], times[users] - at, log.weight[some])


def folded_in(model: InterestModel, log: Log, users: int, cuts: list[int]) -> Floats:
    states, times = np.zeros((users, model.state_size), np.float32), np.zeros(users)
    for begin, end in zip([0, *cuts], [*cuts, len(log.at)], strict=True):
        states = fold(model, states, times, log, slice(begin, end))
    return states


@pytest.mark.timeout(900)
class TestContract:
    def test_shapes_and_dtypes(self, model: InterestModel) -> None:
        state = np.zeros((3, model.state_size), np.float32)
        stepped = model.step(state, articles(model, 3), np.array([[0.0, 0.0, 1.0]] * 3))
        assert stepped.shape == (3, model.state_size)
        assert stepped.dtype == np.float32
        queries = model.query(stepped)
        assert queries.dtype == np.float32
        assert queries.ndim == 3
        assert (len(queries), queries.shape[2]) == (3, model.dims)
        assert long_and_short(queries).shape == (3, 2, model.dims)
        assert model.query(state[:0]).shape[::2] == (0, model.dims)

    def test_a_fold_is_its_steps(self, model: InterestModel) -> None:
        log = Log(model, users=5, events=60)
        stepped, times = np.zeros((5, model.state_size), np.float32), np.zeros(5)
        for user, article, at, weight in zip(log.users, log.articles, log.at, log.weight, strict=True):
            newest = max(times[user], at)
            event = np.array([[newest - times[user], newest - at, weight]])
            stepped[user] = model.step(stepped[user : user + 1], article[None], event)[0]
            times[user] = newest
        np.testing.assert_allclose(folded_in(model, log, 5, []), stepped, atol=FLOAT32_ERROR)

    def test_it_does_not_matter_where_batches_are_cut(self, model: InterestModel) -> None:
        log = Log(model, users=7, events=80)
        whole = folded_in(model, log, 7, [])
        assert whole.any(axis=1).all()
        for cuts in ([1, 2, 40], list(range(1, 80)), [79]):
            np.testing.assert_allclose(folded_in(model, log, 7, cuts), whole, atol=FLOAT32_ERROR)

    def test_other_users_change_nothing(self, model: InterestModel) -> None:
        log = Log(model, users=6, events=90)
        together = folded_in(model, log, 6, [])
        for user in range(6):
            mine = log.users == user
            alone = Log(model, 1, 1)
            alone.users, alone.articles = np.zeros(mine.sum(), np.intp), log.articles[mine]
            alone.at, alone.weight = log.at[mine], log.weight[mine]
            np.testing.assert_allclose(folded_in(model, alone, 1, [])[0], together[user], atol=FLOAT32_ERROR)

    def test_of_whom_nothing_is_known_nothing_is_asked(self, model: InterestModel) -> None:
        assert not model.query(np.zeros((2, model.state_size), np.float32)).any()

    def test_what_was_read_moves_the_query_to_a_unit_vector(self, model: InterestModel) -> None:
        log = Log(model, users=20, events=200)
        log.weight[:] = 1.0
        queries = model.query(folded_in(model, log, 20, []))
        np.testing.assert_allclose(np.linalg.norm(queries, axis=2), 1, atol=1e-4)
        assert len(np.unique(queries.round(3), axis=0)) == 20

    def test_the_state_stays_bounded(self, model: InterestModel) -> None:
        same = articles(model, 1)
        state, event = np.zeros((1, model.state_size), np.float32), np.array([[60_000.0, 0.0, 1.0]])
        for _ in range(10_000):
            state = model.step(state, same, event)
        assert np.isfinite(state).all()
        assert np.abs(state).max() <= 12_000
        assert np.isfinite(model.query(state)).all()

    def test_the_same_events_give_the_same_bits(self, model: InterestModel) -> None:
        log = Log(model, users=5, events=60)
        first, second = (folded_in(model, log, 5, [13, 31]) for _ in range(2))
        assert first.tobytes() == second.tobytes()
        assert model.query(first).tobytes() == model.query(second).tobytes()


@pytest.mark.timeout(900)
class TestOfSomeModels:
    @pytest.mark.parametrize("name", ["transformer", "gan"])
    def test_a_score_is_of_one_pair(self, trained: Path, name: str) -> None:
        model = OnnxInterest.load(trained / name)
        assert model.scores
        log = Log(model, users=4, events=40)
        states, candidates = folded_in(model, log, 4, []), articles(model, 9, seed=5)
        scores = model.score(states, candidates)
        assert scores.shape == (4, 9)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        for user, article in ((0, 0), (3, 8), (2, 4)):
            alone = model.score(states[user : user + 1], candidates[article : article + 1])
            np.testing.assert_allclose(alone, scores[user, article], atol=FLOAT32_ERROR)

    def test_the_spread_is_positive_and_only_where_there_is_variance(self, trained: Path) -> None:
        model = OnnxInterest.load(trained / "vae")
        log = Log(model, users=4, events=40)
        states = folded_in(model, log, 4, [])
        spreads = spread_of(model, states)
        assert spreads.shape == (4,)
        assert (spreads > 0).all()
        assert np.array_equal(spreads, model.spread(states))
        plain = OnnxInterest.load(trained / "plain" / "vae")
        assert np.isnan(spread_of(plain, np.zeros((3, plain.state_size), np.float32))).all()

    @pytest.mark.parametrize("name", TRAINED)
    def test_what_was_not_read_changes_nothing(self, trained: Path, name: str) -> None:
        model = OnnxInterest.load(trained / name)
        state = model.step(np.zeros((1, model.state_size), np.float32), articles(model, 1), np.array([[0, 0, 1.0]]))
        for weight in (-1.0, -0.01, 0.5):
            assert (model.step(state, articles(model, 1, seed=3), np.array([[0, 0, weight]])) == state).all()


READ = ("Late goal sends United into the cup final", "Bond yields jump after the bank's rate decision", "A winter soup")
OFFERED = (
    "Striker scores twice in the derby",
    "Inflation slows, says the bank",
    "Bread with rye flour",
    "Rocket launch",
)


@pytest.mark.timeout(900)
def test_users_worker_and_ranker_serve_it(trained: Path, broker: LocalBroker, tmp_path: Path) -> None:
    """The state in Kafka is the model's own of the vectors in Kafka, and the list is in the order of its query."""
    folder = trained / "served" / "transformer"
    chosen = {"interest_model": folder, "explain": True, "holdout": 0, "exploration": 0}
    with pipeline_on(broker, tmp_path, **chosen) as pipeline:
        assert isinstance(pipeline.model, OnnxInterest)
        for title in READ + OFFERED:
            pipeline.article(title[:8], title)
        pipeline.start("articles", "users", "ranker")
        pipeline.until_embedded(*(title[:8] for title in READ + OFFERED))
        shown = [ShownItem(article_id=title[:8]) for title in OFFERED]
        for title in READ:
            pipeline.event("reader", "click", title[:8])
            pipeline.event("reader", "impression", shown=shown)
            sent = pipeline.event("reader", "dislike", OFFERED[0][:8])
        states = pipeline.records(pipeline.topics.user_vectors)
        states.until(
            lambda all_: "reader" in (now := states_of(all_)) and now["reader"].last_offset == sent.offset,
            "all is folded",
        )
        last = pipeline.event("reader", "like", READ[0][:8], event_id="the like")
        pipeline.until_ranked("reader", "the like")

        records = pipeline.records(pipeline.topics.article_vectors).to_the_end()
        vectors = {m.key.decode(): decode_article(m.value).vector for m in records if m.key and m.value}
        expected = np.zeros((1, pipeline.model.state_size), np.float32)
        for title in (*READ, READ[0]):
            expected = pipeline.model.step(expected, vectors[title[:8]][None], np.array([[0, 0, 1.0]]))
        state = states_of(states.to_the_end())["reader"]
        assert state.last_offset == last.offset
        np.testing.assert_allclose(state.vector, expected[0], atol=FLOAT32_ERROR)

        lists = [m for m in pipeline.records(pipeline.topics.recommendations).to_the_end() if m.key == b"reader"]
        found = decode(List, lists[-1].value or b"")
        query = pipeline.model.query(expected)[0, 0]
        near = [float(query @ vectors[item.article_id]) for item in found.items]
        parts = [item.parts["long"] for item in found.items]
        assert len(found.items) >= 2
        assert {item.article_id for item in found.items} <= {title[:8] for title in OFFERED[1:]}
        assert np.argsort(near).tolist() == np.argsort(parts).tolist()
        for item in found.items:
            assert item.parts["short"] == pytest.approx(item.parts["long"] / 2, abs=1e-3)


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder that is whole by its manifest; its graphs are never opened."""

    def write(**changes: object) -> Path:
        folder = tmp_path / "interest"
        folder.mkdir(exist_ok=True)
        for name in (STEP_FILE, QUERY_FILE):
            (folder / name).write_bytes(name.encode())
        files = {name: describe_file(folder / name) for name in (STEP_FILE, QUERY_FILE)}
        manifest = InterestManifest(model="gru", dims=96, state_size=160, queries=1, files=files, packages={})
        manifest = msgspec.structs.replace(manifest, **changes)
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return folder

    return write


class TestFolder:
    def test_no_setting_means_decay(self) -> None:
        assert isinstance(interest_model(load(environ={"STOPPRESS_INTEREST_MODEL": ""}), 8), Decay)

    def test_the_generation_is_the_models(self, write_model: Callable[..., Path], encoder_path: Path) -> None:
        encoder = read_manifest(encoder_path)
        folder = write_model()
        model = interest_model(load([f"interest_model={folder}"], environ={}), 96)
        generation = generation_of(encoder, model.manifest())
        assert generation != generation_of(encoder, Decay.of(load(environ={}), 96).manifest())
        (folder / STEP_FILE).write_bytes(b"trained anew")
        files = {name: describe_file(folder / name) for name in (STEP_FILE, QUERY_FILE)}
        (folder / "manifest.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(OnnxInterest.load(write_model()).about, files=files))
        )
        (folder / STEP_FILE).write_bytes(b"trained anew")
        assert generation_of(encoder, OnnxInterest.load(folder).manifest()) != generation

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": 9}, "has format 9, this stoppress reads up to 1"),
            ({"files": {}}, "names no step.onnx"),
            ({"files": {name: File(size=1, sha256="0") for name in (STEP_FILE, QUERY_FILE)}}, "is not the file that"),
        ],
    )
    def test_a_folder_that_cannot_be_used(
        self, write_model: Callable[..., Path], changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(InterestModelUnusable, match=message):
            OnnxInterest.load(write_model(**changes))

    def test_names_beside_the_folder_are_not_followed(self, write_model: Callable[..., Path]) -> None:
        folder = write_model()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["../secret"] = manifest["files"][STEP_FILE]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InterestModelUnusable, match=r"names '../secret', which no interest model has"):
            OnnxInterest.load(folder)

    @pytest.mark.parametrize(("dims", "message"), [(97, "was trained for article vectors of 97 numbers"), (None, "no")])
    def test_a_worker_refuses_it_in_one_line(
        self, write_model: Callable[..., Path], encoder_path: Path, dims: int | None, message: str
    ) -> None:
        folder = Path("nowhere") if dims is None else write_model(dims=dims)
        command = ["--set", f"encoder={encoder_path}", "--set", f"interest_model={folder}", "run", "users"]
        run = subprocess.run(
            [sys.executable, "-m", "stoppress", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert run.returncode == 2
        assert message in run.stderr
        assert run.stderr.count("\n") == 1
