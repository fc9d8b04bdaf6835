// "Why is this here?": one card that explains the item under the pointer, the focus or the finger.

import { age, cause, el, hue, part, reason, signed } from "./format.js";

const card = document.getElementById("why");
const RELATED = 3;
let shownFor = null;
let pinned = false;
let timer = 0;
let pointer = [-1, -1];
let dismissedAt = null; // where the pointer lay at Escape: what comes to lie under it there by itself opens nothing

/** Let `item` (an element) explain what `explain()` returns: {item, feed, position}. `onOpen(open)` is told. */
export function explains(element, explain, onOpen) {
  const open = () => show(element, explain(), onOpen);
  element.addEventListener("pointerenter", (event) => {
    if (event.pointerType !== "mouse") return;
    if (event.clientX === dismissedAt?.[0] && event.clientY === dismissedAt[1]) return;
    later(open, 90);
  });
  element.addEventListener("pointerleave", () => !pinned && later(hide, 140));
  element.addEventListener("focusin", () => element.matches(":has(:focus-visible)") && open());
  element.addEventListener("focusout", () => !pinned && later(hide, 60));
}

/** Keep the card open for `element` until it is asked again, or Escape. */
export function pin(element, explanation, onOpen) {
  if (pinned && shownFor?.element === element) return hide();
  show(element, explanation, onOpen);
  pinned = true;
}

export function hide() {
  clearTimeout(timer);
  pinned = false;
  card.hidden = true;
  const before = shownFor;
  shownFor = null;
  before?.element.querySelector(".card")?.removeAttribute("aria-describedby");
  before?.onOpen(false);
}

/** The item is leaving its list. */
export function forget(element) {
  if (shownFor?.element === element) hide();
}

function later(act, delay) {
  clearTimeout(timer);
  timer = setTimeout(act, delay);
}

function show(element, explanation, onOpen) {
  clearTimeout(timer);
  if (!element.isConnected || !explanation) return;
  if (shownFor && shownFor.element !== element) hide();
  shownFor = { element, onOpen };
  fill(explanation);
  card.hidden = false;
  place(element);
  element.querySelector(".card")?.setAttribute("aria-describedby", "why");
  onOpen(true);
}

function fill({ item, feed, position }) {
  const meta = el("p", "meta");
  const chip = el("span", "chip", item.category || "news");
  chip.style.setProperty("--hue", hue(item.category));
  meta.append(chip, el("span", "", age(item.published_at)));
  if (item.publisher) meta.append(el("span", "", item.publisher));
  const nodes = [meta, el("h3", "", item.title)];
  if (item.abstract) nodes.push(el("p", "abstract", item.abstract));
  if (item.reason) nodes.push(el("p", "reason", reason(item.reason)));
  nodes.push(parts(item));
  const from = [`place ${position}`, item.source && `found among the ${item.source}`, feed.cause && `ranked ${cause(feed.cause.kind)}`];
  nodes.push(el("p", "foot", from.filter(Boolean).join(" · ")));
  if (opens(item.url)) {
    const link = el("a", "link", "Open the article");
    link.href = item.url;
    link.target = "_blank";
    link.rel = "noreferrer noopener";
    nodes.push(link);
  }
  card.replaceChildren(...nodes);
  related(item.article_id);
}

/** Add what is related to the article, once it has come and if the card still explains it. */
async function related(articleId) {
  const explained = shownFor;
  const list = await fetch(`/v1/feed?user_id=${encodeURIComponent(`~related/${articleId}`)}`).then((r) => r.json()).catch(() => null);
  if (!list?.items?.length || shownFor !== explained || card.querySelector(".related")) return;
  const found = el("ul", "related");
  for (const item of list.items.slice(0, RELATED)) found.append(el("li", "", item.title));
  card.append(el("p", "foot", "Related"), found);
  place(explained.element);
}

/** Whether a link leads somewhere; hosts in .example are reserved for invented ones. */
function opens(url) {
  try {
    const { protocol, hostname } = new URL(url);
    return /^https?:$/.test(protocol) && !hostname.endsWith(".example");
  } catch {
    return false;
  }
}

function parts(item) {
  const table = el("table");
  const named = Object.entries(item.parts ?? {});
  const rest = item.score - named.reduce((sum, [, value]) => sum + value, 0);
  if (named.length && Math.abs(rest) > 0.0006) named.push(["other", rest]);
  const largest = Math.max(1e-9, ...named.map(([, value]) => Math.abs(value)));
  const anyNegative = named.some(([, value]) => value < 0);
  const body = el("tbody");
  for (const [name, value] of named) {
    const row = el("tr", `part ${name}`);
    const head = el("th", "", part(name));
    head.scope = "row";
    const cell = el("td", "bar");
    const bar = el("span", value < 0 ? "negative" : "");
    bar.style.width = `${(anyNegative ? 50 : 100) * (Math.abs(value) / largest)}%`;
    bar.style.marginLeft = anyNegative && value >= 0 ? "50%" : "0";
    if (value < 0) bar.style.marginLeft = `${50 - 50 * (Math.abs(value) / largest)}%`;
    cell.append(bar);
    row.append(head, cell, el("td", "value", signed(value)));
    body.append(row);
  }
  table.append(body);
  const foot = el("tfoot");
  const sum = el("tr");
  const head = el("th", "", named.length ? "Sum = score" : "Score");
  head.scope = "row";
  sum.append(head, el("td"), el("td", "value", signed(item.score)));
  foot.append(sum);
  table.append(foot);
  return table;
}

function place(element) {
  if (matchMedia("(max-width: 720px)").matches) {
    card.style.left = card.style.top = "";
    return;
  }
  const at = element.getBoundingClientRect();
  const gap = 10;
  const width = card.offsetWidth;
  const height = card.offsetHeight;
  let left = at.right + gap;
  if (left + width > innerWidth - 8) left = at.left - gap - width;
  if (left < 8) left = Math.min(at.left, innerWidth - width - 8);
  const top = Math.min(Math.max(8, at.top - 12), innerHeight - height - 8);
  card.style.left = `${Math.max(8, left)}px`;
  card.style.top = `${Math.max(8, top)}px`;
}

card.addEventListener("pointerenter", () => clearTimeout(timer));
card.addEventListener("pointerleave", () => !pinned && later(hide, 140));
addEventListener("pointermove", (event) => (pointer = [event.clientX, event.clientY]), { capture: true, passive: true });
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  dismissedAt = pointer;
  hide();
});
addEventListener("pointerdown", (event) => {
  if (pinned && !card.contains(event.target) && !shownFor?.element.contains(event.target)) hide();
});
