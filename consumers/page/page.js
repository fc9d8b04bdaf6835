// The page: connects the feeds and, where a demo runs, its control service.

import { Column } from "./column.js";
import { count, el } from "./format.js";
import { Figures } from "./figures.js";

const ANSWER_MS = 4000; // how long the answer to one's own click is told
const params = new URLSearchParams(location.search);
const feeds = document.getElementById("feeds");
const link = document.getElementById("link");
const columns = new Map();
const starting = el("p", "starting");
const you = ownId();
const sent = new Map(); // article_id of one's own click -> when it was made
let control = null;
let marked = null;
let feed = null;

start();

async function start() {
  const config = await fetch("/page/config.json").then((r) => r.json(), () => ({}));
  control = config.control ?? null;
  const asked = params.get("users")?.split(",").filter(Boolean);
  if (!control) return follow((asked ?? ["~popular"]).map((userId) => ({ user_id: userId })));
  const figures = new Figures({ send, say, onPublished: (articleId) => mark(articleId) });
  const source = new EventSource(`${control}/control/stream`);
  source.addEventListener("hello", (event) => {
    figures.hello(JSON.parse(event.data));
    if (asked && !feed) follow(asked.map((userId) => ({ user_id: userId })));
    else if (!feed) follow([]);
  });
  source.addEventListener("cast", (event) => {
    if (!asked && columns.size < 2) follow(JSON.parse(event.data).users);
  });
  source.addEventListener("figures", (event) => {
    const f = JSON.parse(event.data);
    figures.update(f);
    tellStart(f.articles);
    if (f.reach && f.reach.article_id !== marked) mark(f.reach.article_id);
  });
}

/** Open columns, "you" first where a demo runs, and one stream for all of them. */
function follow(users) {
  const own = { user_id: you, label: "You", note: you };
  for (const user of control ? [own, ...users] : users) {
    if (columns.has(user.user_id)) continue;
    const column = new Column({
      userId: user.user_id,
      ...reserved(user.user_id),
      ...user,
      you: user.user_id === you,
      onRead: user.user_id === you && control ? read : null,
    });
    columns.set(user.user_id, column);
    feeds.append(column.root);
  }
  document.body.style.setProperty("--columns", control && !params.has("users") ? Math.max(4, columns.size) : columns.size);
  feed?.close();
  const source = (feed = new EventSource(`/v1/stream?users=${[...columns.keys()].map(encodeURIComponent).join(",")}`));
  source.addEventListener("open", () => linked("live", "live"));
  source.addEventListener("error", () => linked("lost", "reconnecting …"));
  source.addEventListener("feed", (event) => {
    const list = JSON.parse(event.data);
    const column = columns.get(list.user_id);
    if (!column) return;
    column.update(list);
    if (column.you) answered(list);
    if (marked) column.mark(marked);
  });
}

/** How a column is headed whose list is nobody's own. */
function reserved(key) {
  const name = key.slice(key.indexOf("/") + 1);
  if (key === "~popular") return { label: "Popular", note: "the list of everyone" };
  if (key.startsWith("~popular/")) return { label: `Popular in ${name}`, note: "everyone's, of one section", face: name };
  if (key.startsWith("~related/")) return { label: `Related to ${name}`, note: "for whoever reads it", face: name };
  return { label: key, note: "" };
}

/** Until the first readers are there, say what they wait for. */
function tellStart({ published, embedded }) {
  if (columns.size > 1) return starting.remove();
  if (!starting.isConnected) feeds.append(starting);
  starting.replaceChildren(
    el("b", "", published ? `${count(embedded)} of ${count(published)} articles embedded` : "The newsroom opens"),
    el("span", "", published && embedded === published ? "The readers come in." : "The readers come once the archive is."),
  );
}

setInterval(() => {
  const now = Date.now();
  for (const column of columns.values()) column.tick(now);
}, 5000);

function linked(state, text) {
  link.className = `link ${state}`;
  const words = link.querySelector("span");
  if (words.textContent !== text) words.textContent = text;
}

/** One's own click: send it, and time it until the list without the article that was read is drawn. */
async function read(item, position, list) {
  if (sent.has(item.article_id)) return;
  const clicked = performance.now();
  sent.set(item.article_id, clicked);
  columns.get(you).expects = true;
  const answer = await send("click", { user_id: you, article_id: item.article_id, list_id: list.list_id, position, reason: item.reason, source: item.source });
  if (!answer) {
    sent.delete(item.article_id);
    columns.get(you).expects = sent.size > 0;
    columns.get(you).list.querySelector(".reading")?.classList.remove("reading");
  }
}

function answered(list) {
  if (list.fallback) return;
  const shown = new Set(list.items.map((item) => item.article_id));
  for (const [articleId, clicked] of sent) {
    if (shown.has(articleId)) continue;
    sent.delete(articleId);
    const took = Math.round(performance.now() - clicked);
    const column = columns.get(you);
    column.expects = sent.size > 0;
    column.answeredUntil = performance.now() + ANSWER_MS;
    column.cause.replaceChildren(el("b", "", `${count(took)} ms`), el("span", "", "from your click to this list"));
    column.root.classList.remove("answered");
    void column.root.offsetWidth; // restarts the animation
    column.root.classList.add("answered");
    say(`Your list changed ${took} milliseconds after your click.`);
  }
}

function mark(articleId) {
  marked = articleId;
  for (const column of columns.values()) column.mark(articleId);
}

async function send(path, body) {
  try {
    const answer = await fetch(`${control}/control/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) return await answer.json();
    say(`That did not work: ${(await answer.json().catch(() => ({}))).detail ?? answer.status}`);
  } catch {
    say("The demo does not answer; is it still running?");
  }
  return null;
}

function say(text) {
  document.getElementById("said").textContent = text;
}

/** A random id per browser: this browser is one more user. */
function ownId() {
  const key = "stoppress-you";
  let id = null;
  try {
    id = localStorage.getItem(key);
  } catch {
    // no storage: a new user on each load
  }
  if (!id || !/^you-[a-z0-9]{4,12}$/.test(id)) {
    id = `you-${[...crypto.getRandomValues(new Uint8Array(6))].map((b) => (b % 36).toString(36)).join("")}`;
    try {
      localStorage.setItem(key, id);
    } catch {
      // see above
    }
  }
  return id;
}
