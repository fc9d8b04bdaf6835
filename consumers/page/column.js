// One user's feed: a column whose items glide to their new places.

import { age, cause, count, el, hue, ms } from "./format.js";
import { explains, forget, pin } from "./why.js";

const SHOWN = 12;
const CALM_MS = 1200; // between two redraws of a column that is not one's own
const EASE = "cubic-bezier(.2,.8,.2,1)";
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Column {
  /** `onRead(item, position, feed)` is called when the owner clicks an item; null: the column only explains. */
  constructor({ userId, label, note, face: named = label, you, onRead }) {
    this.userId = userId;
    this.you = you;
    this.onRead = onRead;
    this.rows = new Map();
    this.feed = null;
    this.waiting = null;
    this.held = false;
    this.expects = false; // an answer to one's own click
    this.drawnAt = 0;
    this.root = el("article", you ? "feed you" : "feed");
    const head = el("header");
    const face = el("span", "face", named.slice(0, 1).toUpperCase());
    face.setAttribute("aria-hidden", "true");
    face.style.setProperty("--hue", hue(userId));
    const names = el("div", "names");
    this.heading = el("h2", "", label);
    this.heading.id = `feed-${userId}`;
    this.note = el("p", "note", note);
    names.append(this.heading, this.note);
    this.cause = el("p", "cause");
    this.answeredUntil = 0;
    head.append(face, names, this.cause);
    this.list = el("ol", "items");
    this.list.setAttribute("aria-labelledby", this.heading.id);
    this.empty = el("p", "empty", "Waiting for the first list…");
    this.root.append(head, this.empty, this.list);
  }

  /** Show a feed: the answer to one's own click at once, all else calmly, and not while someone reads in it. */
  update(feed) {
    this.waiting = feed;
    if (this.expects || !this.feed) return this.draw();
    if (this.held) return this.root.classList.add("held");
    if (this.timer) return;
    const wait = this.drawnAt + CALM_MS - performance.now();
    if (wait <= 0) return this.draw();
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (!this.held) this.draw();
    }, wait);
  }

  hold(held) {
    this.held = held;
    if (!this.held && this.waiting) this.draw();
  }

  draw() {
    const feed = this.waiting;
    this.waiting = null;
    if (!feed) return;
    this.drawnAt = performance.now();
    this.root.classList.remove("held");
    const first = this.feed === null;
    this.feed = feed;
    this.empty.hidden = feed.items.length > 0;
    if (this.you) this.note.textContent = feed.fallback ? "everyone's list, so far" : this.userId;
    this.tell(feed);
    const animate = !first && !still.matches && document.visibilityState === "visible";
    const before = new Map();
    const origin = this.list.getBoundingClientRect().top;
    if (animate) for (const [id, row] of this.rows) before.set(id, row.root.getBoundingClientRect().top - origin);
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
    const items = feed.items.slice(0, SHOWN);
    const kept = new Set(items.map((item) => item.article_id));
    for (const [id, row] of this.rows) if (!kept.has(id)) this.leave(id, row, before.get(id), animate);
    items.forEach((item, index) => {
      let row = this.rows.get(item.article_id);
      if (!row) {
        row = this.row();
        this.rows.set(item.article_id, row);
      }
      row.fill(item, index + 1, feed);
      if (this.list.children[index] !== row.root) this.list.insertBefore(row.root, this.list.children[index] ?? null);
    });
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    if (animate) this.glide(items, before, origin);
  }

  glide(items, before, origin) {
    const rows = items.map((item) => this.rows.get(item.article_id));
    for (const row of rows) {
      for (const running of row.root.getAnimations()) running.cancel();
      row.root.classList.remove("moving", "rising");
    }
    for (const row of rows) {
      const was = before.get(row.item.article_id);
      if (was === undefined) {
        row.root.animate([{ opacity: 0, transform: "translateY(-10px) scale(.97)" }, { opacity: 1, transform: "none" }], { duration: 380, delay: 140, fill: "backwards", easing: EASE });
        row.flash();
        continue;
      }
      const dy = was - (row.root.getBoundingClientRect().top - origin);
      if (Math.abs(dy) < 1) continue;
      row.root.classList.add("moving");
      row.root.classList.toggle("rising", dy > 0);
      const glide = row.root.animate([{ transform: `translateY(${dy}px)` }, { transform: "none" }], { duration: 560, easing: EASE });
      glide.onfinish = () => row.root.classList.remove("moving", "rising");
    }
  }

  leave(id, row, top, animate) {
    this.rows.delete(id);
    forget(row.root);
    if (!animate) return row.root.remove();
    const ghost = row.root.cloneNode(true);
    ghost.inert = true;
    ghost.setAttribute("aria-hidden", "true");
    ghost.classList.add("ghost");
    ghost.style.top = `${top + this.list.scrollTop}px`;
    row.root.remove();
    this.root.querySelector(".items").append(ghost);
    ghost.animate([{ opacity: 0.9, transform: "none" }, { opacity: 0, transform: "translateX(-16px)" }], { duration: 160, easing: "ease-in", fill: "forwards" }).finished.finally(() => ghost.remove());
  }

  /** Say in the head what changed the list and how fast. */
  tell(feed) {
    if (performance.now() < this.answeredUntil) return; // one's own click is to be read before the next publication
    if (this.onRead && feed.fallback && feed.items.length) return this.cause.replaceChildren(el("span", "call", "Click an item: the list becomes yours"));
    if (!feed.cause) return this.cause.replaceChildren();
    const parts = [];
    if (feed.latency_ms != null && feed.latency_ms >= 0 && (feed.cause.kind === "event" || feed.cause.kind === "article")) {
      parts.push(el("b", "", `${ms(feed.latency_ms)} ms`));
    }
    parts.push(el("span", "", cause(feed.cause.kind)));
    this.cause.replaceChildren(...parts);
  }

  /** Mark the items of an article, wherever it stands. */
  mark(articleId) {
    for (const [id, row] of this.rows) row.root.classList.toggle("marked", id === articleId);
  }

  tick(now) {
    for (const row of this.rows.values()) row.age(now);
  }

  row() {
    const root = el("li", "item");
    const card = el("button", "card");
    card.type = "button";
    const rank = el("span", "rank");
    const body = el("span", "body");
    const meta = el("span", "meta");
    const chip = el("span", "chip");
    const when = el("span", "when");
    meta.append(chip, when);
    const title = el("span", "title");
    const bar = el("span", "mix");
    bar.setAttribute("aria-hidden", "true");
    body.append(meta, title, bar);
    card.append(rank, body);
    const why = el("button", "ask", "?");
    why.type = "button";
    why.tabIndex = -1;
    why.setAttribute("aria-label", "Why is this here?");
    root.append(card, why);
    const row = { root, item: null, position: 0, feed: null };
    row.fill = (item, position, feed) => {
      Object.assign(row, { item, position, feed });
      root.dataset.article = item.article_id;
      rank.textContent = count(position);
      chip.textContent = item.category || "news";
      chip.style.setProperty("--hue", hue(item.category));
      title.textContent = item.title;
      row.age(Date.now());
      mix(bar, item);
    };
    row.age = (now) => {
      const text = age(row.item.published_at, now);
      if (when.textContent !== text) when.textContent = text;
      when.classList.toggle("now", now - row.item.published_at < 60_000);
    };
    row.flash = () => {
      root.classList.add("fresh");
      setTimeout(() => root.classList.remove("fresh"), 1400);
    };
    const explanation = () => row.item && { item: row.item, feed: row.feed, position: row.position };
    const hold = (open) => this.hold(open);
    explains(root, explanation, hold);
    why.addEventListener("click", () => pin(root, explanation(), hold));
    card.addEventListener("click", () => {
      if (!this.onRead) return pin(root, explanation(), hold);
      root.classList.add("reading");
      this.onRead(row.item, row.position, row.feed);
    });
    return row;
  }
}

/** The share of each positive part in the score as one thin stacked bar. */
function mix(bar, item) {
  const named = Object.entries(item.parts ?? {}).filter(([, value]) => value > 0);
  const total = named.reduce((sum, [, value]) => sum + value, 0);
  while (bar.children.length > named.length) bar.lastChild.remove();
  named.forEach(([name, value], i) => {
    const segment = bar.children[i] ?? bar.appendChild(el("span"));
    segment.className = `part ${name}`;
    segment.style.flexGrow = (value / total).toFixed(3);
  });
  bar.hidden = named.length === 0;
}
