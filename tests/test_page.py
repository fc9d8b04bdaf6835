"""The page of a running demo in a real Chromium: what a visitor sees and does, and what it asks of the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.pipeline import await_true
from tests.running_demo import SMALL, RunningDemo

pytestmark = pytest.mark.chromium

USERS = [f"user-{number:05d}" for number in range(60)]
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[RunningDemo]:
    with RunningDemo(tmp_path_factory.mktemp("demo"), *SMALL) as running:
        running.await_live()
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )


class Visit:
    """A page of a visitor who was never here before, and everything that it asked for and complained about."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        self.page.goto(address)
        self.you = self.page.locator(".feed.you")
        expect(self.page.locator(".feed")).to_have_count(4)
        for feed in self.page.locator(".feed").all():
            expect(feed.locator(".item").first).to_be_visible()

    def number(self, id_: str) -> int:
        return int(self.page.locator(f"#{id_}").inner_text().replace(",", ""))


@pytest.fixture
def visit(browser: Browser, demo: RunningDemo) -> Iterator[Visit]:
    """A visit that asks nothing of anybody but this machine, and has nothing to complain about."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        made = Visit(context, demo.await_page())
        yield made
        assert made.complaints == []
        assert made.hosts == {"127.0.0.1"}


def articles(feed: Locator) -> list[str]:
    """The ids of the articles in a column, the first first."""
    return [str(item.get_attribute("data-article")) for item in feed.locator(".item:not(.ghost)").all()]


def test_feeds_stand_side_by_side_and_change_without_a_reload(visit: Visit) -> None:
    boxes = [box for feed in visit.page.locator(".feed").all() if (box := feed.bounding_box())]
    assert [box["y"] for box in boxes] == [boxes[0]["y"]] * 4
    assert all(left["x"] + left["width"] < right["x"] for left, right in pairwise(boxes))
    expect(visit.page.locator("#strap")).to_have_text(
        "60 simulated readers, 120 fresh articles, a real Kafka on this machine"
    )
    expect(visit.page.locator("#link")).to_have_text("live")
    for feed in visit.page.locator(".feed:not(.you)").all():
        items = feed.locator(".items")
        before = items.inner_text()
        expect(items).not_to_have_text(before, use_inner_text=True)
        expect(feed.locator(".cause")).to_have_text(re.compile(r"^[\d.,]+ ms ?after a (click|publication)$"))


def test_the_visitor_is_one_more_user_whose_click_changes_their_list(visit: Visit, demo: RunningDemo) -> None:
    expect(visit.you.locator(".cause")).to_have_text("Click an item: the list becomes yours")
    clicked = visit.you.locator(".item").nth(2)
    clicked.hover()  # which holds the list still
    before = articles(visit.you)
    clicked.locator(".card").click()
    expect(visit.you.locator(".cause")).to_have_text(re.compile(r"^[\d,]+ ms ?from your click to this list$"))
    expect(visit.you.locator(f'.item:not(.ghost)[data-article="{before[2]}"]')).to_have_count(0)
    after = articles(visit.you)
    assert before[2] not in after
    assert set(before) != set(after)
    user_id = visit.you.locator(".note").inner_text()
    feed = demo.feed(user_id)
    assert not feed["fallback"]
    assert before[2] not in [item["article_id"] for item in feed["items"]]


def test_a_click_on_another_users_item_explains_and_reads_nothing(visit: Visit, demo: RunningDemo) -> None:
    other = visit.page.locator(".feed").nth(1)
    other.locator(".item").first.locator(".card").click()
    expect(visit.page.locator("#why")).to_be_visible()
    expect(other.locator(".reading")).to_have_count(0)
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#why")).to_be_hidden()


def test_hovering_an_item_shows_the_numbers_that_add_up_to_its_score(visit: Visit, demo: RunningDemo) -> None:
    other = visit.page.locator(".feed").nth(1)
    item = other.locator(".item").nth(1)
    item.hover()
    why = visit.page.locator("#why")
    expect(why).to_be_visible()
    expect(other.locator(".cause")).to_be_visible()
    assert why.locator("h3").inner_text() == item.locator(".title").inner_text()
    names = why.locator("tbody th").all_inner_texts()
    assert names[:3] == ["Long-term interest", "Short-term interest", "Like articles read"]
    assert len(names) == len(demo.feed(other.locator(".note").inner_text())["items"][0]["parts"])
    values = [float(text.replace("−", "-")) for text in why.locator("td.value").all_inner_texts()]
    *parts, score = values
    assert len(parts) == len(names)
    assert sum(parts) == pytest.approx(score, abs=0.0005 * (len(parts) + 2))
    assert any(parts)
    box = why.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1440
    held = articles(other)
    expect(other).to_have_class(re.compile("held"))
    assert articles(other) == held, "a list is held while someone reads in it"
    visit.page.mouse.move(1, 1)
    expect(why).to_be_hidden()
    expect(other).not_to_have_class(re.compile("held"))


def test_an_explanation_names_what_is_related_to_the_article(visit: Visit, demo: RunningDemo) -> None:
    item = visit.page.locator(".feed").nth(1).locator(".item").first
    item.hover()  # which holds the list still
    expect(visit.page.locator("#why")).to_be_visible()
    key = f"~related/{item.get_attribute('data-article')}"
    await_true(lambda: demo.feed(key)["items"] or None, "the article has related ones")
    item.locator(".card").click()
    shown = visit.page.locator("#why .related li")
    expect(shown).to_have_count(3)
    assert set(shown.all_inner_texts()) <= {found["title"] for found in demo.feed(key)["items"]}


def test_a_suggested_headline_is_published_with_one_click_and_counted_where_it_arrives(
    visit: Visit, demo: RunningDemo
) -> None:
    suggestions = visit.page.locator("#suggestions button")
    expect(suggestions).to_have_count(3)
    title = suggestions.first.locator("span").last.inner_text()
    suggestions.first.click()
    expect(visit.page.locator("#reach-title")).to_have_text(title)
    expect(visit.page.locator("#reached")).not_to_have_text("0")
    expect(visit.page.locator("#reach-note")).to_have_text(
        re.compile(r"^the first after [\d,]+ ms · [\d,]+ within a second$")
    )
    expect(visit.page.locator("#reach-chart path.line")).to_have_attribute("d", re.compile("^M.*V"))
    expect(suggestions).to_have_count(3)
    assert title not in suggestions.all_inner_texts()
    holders = await_true(lambda: [user for user in USERS if title in titles(demo, user)] or None, "a list with it")
    await_true(lambda: visit.number("reached") >= len(holders), "all of them counted")


def titles(demo: RunningDemo, user_id: str) -> list[str]:
    return [item["title"] for item in demo.feed(user_id)["items"]]


def test_a_typed_headline_is_marked_where_it_appears_and_is_text_whatever_it_contains(
    visit: Visit, demo: RunningDemo
) -> None:
    everybody = visit.page.context.new_page()
    everybody.goto(f"{demo.await_page()}/?users={','.join(USERS)}")
    expect(everybody.locator(".feed")).to_have_count(1 + len(USERS))
    title = 'Harbour <b>bridge</b> & ferry: "open" <img src=x onerror=alert(1)>'
    visit.page.fill("#headline", title)
    visit.page.press("#headline", "Enter")
    expect(visit.page.locator("#reach-title")).to_have_text(title)
    expect(visit.page.locator("#headline")).to_have_value("")
    expect(everybody.locator(".item.marked .title").first).to_have_text(title)


def test_a_killed_worker_comes_back_and_nothing_is_lost(visit: Visit, demo: RunningDemo) -> None:
    (before,) = demo.pids("run users")
    kill, recovery = visit.page.locator("#kill"), visit.page.locator("#recovery")
    kill.click()
    expect(kill).to_be_disabled()
    expect(recovery).to_have_text("dead; its events wait safely in Kafka")
    expect(recovery).to_have_text("to full recovery, nothing lost")
    assert re.fullmatch(r"\d+(\.\d)? s", visit.page.locator("#recovery-seconds").inner_text())
    expect(kill).to_be_enabled()
    assert demo.pids("run users") != [before], "another process"
    assert "users ended with 247; starting it again" in demo.said(), "which was killed, not stopped"
    sent = visit.number("sent")
    figures = await_true(lambda: found if (found := account(visit.page))["sent"] > sent else None, "new events")
    parts = ("folded", "waiting", "duplicate", "dead", "in-flight")
    assert figures["sent"] == sum(figures[part] for part in parts)
    assert figures["folded"] > sent - figures["in-flight"] - 100
    assert figures["lost"] == 0


def account(page: Page) -> dict[str, int]:
    """The numbers of the panel as they stand at one moment."""
    shown: dict[str, str] = page.evaluate(
        """() => Object.fromEntries(["sent", "folded", "waiting", "duplicate", "dead", "in-flight", "lost"]
            .map((id) => [id, document.getElementById(id).textContent]))"""
    )
    return {name: int(text.replace(",", "")) for name, text in shown.items()}


def test_figures_of_the_moment_are_shown(visit: Visit) -> None:
    for name in ("click-p50", "click-p99", "publish-p50", "publish-p99", "events-rate", "lists-rate"):
        expect(visit.page.locator(f"#{name}")).to_have_text(re.compile(r"^[1-9][\d,.]*$"))
    for name in ("ctr-personal", "ctr-popular"):
        expect(visit.page.locator(f"#{name}")).to_have_text(re.compile(r"^\d+\.\d %$"))
    expect(visit.page.locator("#ctr-chart path.line.personal")).to_have_attribute("d", re.compile("^M"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everything_fits_and_a_tap_explains(browser: Browser, demo: RunningDemo, scheme: str) -> None:
    with browser.new_context(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True,
        color_scheme="dark" if scheme == "dark" else "light",
    ) as context:  # fmt: skip
        visit = Visit(context, demo.await_page())
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
        for panel in visit.page.locator(".panel").all():
            box = panel.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
        visit.you.locator(".item .ask").first.tap()
        box = visit.page.locator("#why").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert 0 <= box["y"] <= box["y"] + box["height"] <= 844
        background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", background)[:3]))
        assert (lightness < 200) == (scheme == "dark")
        assert visit.complaints == []


def test_a_page_of_a_demo_that_ended_says_that_it_is_gone(browser: Browser, demo: RunningDemo) -> None:
    with browser.new_context() as context:
        visit = Visit(context, demo.await_page())
        demo.process.terminate()
        expect(visit.page.locator("#link")).to_have_text("reconnecting …")
        visit.you.locator(".item .card").first.click()
        expect(visit.page.locator("#said")).to_have_text("The demo does not answer; is it still running?")
        expect(visit.you.locator(".reading")).to_have_count(0)
    assert demo.wait() == 0, demo.said()
