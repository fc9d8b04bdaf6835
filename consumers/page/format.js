// How numbers, times and codes read on the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => (n == null ? "–" : whole.format(n));
export const percent = (x) => (x == null ? "–" : `${(100 * x).toFixed(1)} %`);

/** With its sign, three digits; what rounds to nothing has none. */
export function signed(x) {
  const digits = Math.abs(x).toFixed(3);
  return Number(digits) === 0 ? digits : `${x < 0 ? "−" : "+"}${digits}`;
}

export const counted = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function ms(x) {
  if (x == null) return "–";
  return x < 10 ? x.toFixed(1) : whole.format(x);
}

export function seconds(x) {
  return x == null ? "–" : `${x.toFixed(x < 10 ? 1 : 0)} s`;
}

export function age(at, now = Date.now()) {
  const s = Math.max(0, (now - at) / 1000);
  if (s < 5) return "just now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

const CAUSES = {
  event: "after a click",
  article: "after a publication",
  withdrawal: "after a withdrawal",
  refresh: "in a refresh",
  start: "at start",
};

export const cause = (kind) => CAUSES[kind] ?? words(kind);

const REASONS = {
  interest: "Close to what this user reads",
  recent_interest: "Close to what was read just now",
  similar_to_read: "Like an article this user read",
  category: "From a section this user reads often",
  read_together: "Readers of the last article went on to this",
  followed: "About something this user follows",
  popular: "Many are reading it now",
  appealing: "Of a kind that readers like",
  new: "Published lately",
  editors_choice: "Chosen by the editors",
  exploration: "New here: few have seen it yet",
};

export const reason = (code) => REASONS[code] ?? words(code);

const PARTS = {
  long: "Long-term interest",
  short: "Short-term interest",
  nearest: "Like articles read",
  category: "Section",
  co_reads: "Read together",
  followed: "Followed",
  popularity: "Popularity",
  appeal: "Appeal of its kind",
  editor: "Editors",
  freshness: "Freshness",
  fatigue: "Seen before",
};

export const part = (name) => PARTS[name] ?? words(name);

function words(code) {
  const text = String(code ?? "").replaceAll(/[_-]+/g, " ").trim();
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

/** One of twelve hues, the same for the same category everywhere. */
export function hue(text) {
  let h = 2166136261;
  for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619);
  return ((h >>> 8) % 12) * 30 + 8;
}

/** A new element with a class and, always as plain text, its content. */
export function el(tag, className = "", text = null) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  return node;
}
