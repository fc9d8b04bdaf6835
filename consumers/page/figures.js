// The rail: publishing, the account of every event, the kill, click-through rates, latencies.

import { LineChart, roundUp } from "./charts.js";
import { count, counted, el, hue, ms, percent, seconds } from "./format.js";

const id = (name) => document.getElementById(name);
const FLIGHT_SECONDS = 90;
const SUGGESTED = 3;

function put(name, text) {
  const node = id(name);
  if (node.textContent !== text) node.textContent = text;
}

export class Figures {
  /** `send(path, body)` posts to the control service; `say(text)` reaches screen readers. */
  constructor({ send, say, onPublished }) {
    this.send = send;
    this.say = say;
    this.onPublished = onPublished;
    this.flight = [];
    this.ctr = [];
    this.told = { kill: 0, reach: "" };
    this.suggestions = [];
    this.reachChart = new LineChart(id("reach-chart"), [{ name: "reached", area: true }], {
      height: 62,
      label: (top) => counted(top, "user"),
    });
    this.flightChart = new LineChart(id("flight-chart"), [{ name: "flight", area: true }], {
      height: 58,
      label: (top) => `${count(top)} in flight`,
    });
    this.ctrChart = new LineChart(id("ctr-chart"), [{ name: "popular" }, { name: "personal", area: true }], {
      height: null,
      label: (top) => percent(top),
    });
    id("publish").addEventListener("submit", (event) => this.typed(event));
    id("kill").addEventListener("click", () => this.kill());
  }

  hello({ history = [], suggestions = [], strap = "" }) {
    this.suggestions = [...suggestions];
    this.suggest();
    if (strap) put("strap", strap);
    this.flight = history.map((p) => [p.at, p.in_flight]);
    this.ctr = history.filter((p) => p.personal != null).map((p) => [p.at, p.popular, p.personal]);
    id("rail").hidden = false;
    id("kpis").hidden = false;
  }

  /** A few headlines, each published with one click and then replaced by the next. */
  suggest() {
    const list = id("suggestions");
    list.hidden = this.suggestions.length === 0;
    const shown = this.suggestions.slice(0, SUGGESTED).map((headline) => {
      const button = el("button");
      button.type = "button";
      button.title = `Publish: ${headline.title}`;
      const chip = el("span", "chip", headline.category);
      chip.style.setProperty("--hue", hue(headline.category));
      button.append(chip, el("span", "", headline.title));
      button.addEventListener("click", async () => {
        button.disabled = true;
        if (!(await this.publish(headline))) return (button.disabled = false);
        this.suggestions = this.suggestions.filter((other) => other !== headline);
        this.suggest();
      });
      const item = el("li");
      item.append(button);
      return item;
    });
    list.replaceChildren(...shown);
  }

  async typed(event) {
    event.preventDefault();
    const field = id("headline");
    const title = field.value.trim();
    if (!title) return field.focus();
    if (await this.publish({ title })) field.value = "";
  }

  async publish(headline) {
    const answer = await this.send("publish", headline);
    if (answer) this.onPublished(answer.article_id);
    return answer;
  }

  async kill() {
    const button = id("kill");
    button.disabled = true;
    put("recovery", "kill -9 …");
    if (!(await this.send("kill", {}))) button.disabled = false; // else until it has recovered
  }

  update(f) {
    for (const name of ["sent", "folded", "waiting", "duplicate", "dead"]) put(name, count(f.account[name]));
    put("in-flight", count(f.account.in_flight));
    put("lost", count(f.account.lost));
    id("account").classList.toggle("wrong", f.account.lost > 0);
    put("events-rate", count(f.rates.events_per_s));
    put("lists-rate", count(f.rates.lists_per_s));
    put("click-p50", ms(f.latency.event_to_list_ms.p50));
    put("click-p99", ms(f.latency.event_to_list_ms.p99));
    put("publish-p50", ms(f.latency.publish_to_list_ms.p50));
    put("publish-p99", ms(f.latency.publish_to_list_ms.p99));
    put("audience", count(f.users));
    this.drawFlight(f);
    this.drawCtr(f);
    if (f.reach) this.drawReach(f.reach);
    this.drawKill(f.kill);
  }

  drawFlight(f) {
    this.flight.push([f.at, f.account.in_flight]);
    const from = f.at - FLIGHT_SECONDS * 1000;
    while (this.flight.length && this.flight[0][0] < from) this.flight.shift();
    const top = roundUp(Math.max(50, ...this.flight.map((p) => p[1])));
    this.flightChart.draw(this.flight, { top, from, to: f.at });
  }

  drawCtr(f) {
    const { personal, popular } = f.ctr;
    put("ctr-personal", percent(personal));
    put("ctr-popular", percent(popular));
    put("ctr-lift", personal && popular ? `×${(personal / popular).toFixed(2)}` : "");
    id("ctr-lift").classList.toggle("better", personal > popular);
    if (personal == null) return;
    const last = this.ctr.at(-1);
    if (last && f.at - last[0] < 900) return;
    this.ctr.push([f.at, popular, personal]);
    if (this.ctr.length > 900) this.ctr.splice(0, this.ctr.length - 900);
    const top = roundUp(1.1 * Math.max(...this.ctr.map((p) => Math.max(p[1] ?? 0, p[2] ?? 0))));
    this.ctrChart.draw(this.ctr, { top, from: this.ctr[0][0], to: f.at });
  }

  drawReach(reach) {
    for (const part of ["reach-title", "reach-figure", "reach-chart"]) id(part).hidden = false;
    put("reach-title", reach.title);
    put("reached", count(reach.users));
    id("reach").classList.toggle("live", reach.users > 0);
    put("reach-note", reachNote(reach));
    const curve = [[0, 0], ...reach.curve];
    const until = Math.max(1000, curve.at(-1)[0] * 1.05);
    const top = curve.at(-1)[1];
    if (top) curve.push([until, top]);
    this.reachChart.draw(curve, { top: roundUp(top), from: 0, to: until, step: true, end: seconds(until / 1000) });
    if (reach.users && this.told.reach !== reach.article_id) {
      this.told.reach = reach.article_id;
      this.say(`Your headline reached its first reader's list after ${ms(reach.first_ms)} milliseconds.`);
    }
  }

  drawKill(kill) {
    if (!kill) return;
    const { phase } = kill;
    const over = phase === "accounted" || phase === "failed";
    const panel = id("account");
    if (panel.dataset.phase !== phase) panel.dataset.phase = phase;
    id("kill").disabled = !over;
    id("recovery-seconds").hidden = false;
    put("recovery-seconds", seconds(phase === "accounted" ? kill.accounted_s : kill.down_s));
    id("recovery-seconds").classList.toggle("failed", phase === "failed");
    put("recovery", story(kill));
    if (phase === "accounted" && this.told.kill !== kill.n) {
      this.told.kill = kill.n;
      this.say(`The worker recovered in ${seconds(kill.accounted_s)}. Nothing was lost.`);
    }
  }
}

function reachNote({ users, first_ms, first_second, at }) {
  if (!users) return `published ${seconds((Date.now() - at) / 1000)} ago, in nobody's list yet`;
  if (first_ms == null) return "the first after more than ten seconds";
  return `the first after ${ms(first_ms)} ms · ${count(first_second)} within a second`;
}

function story({ phase, ready_s }) {
  if (phase === "accounted") return "to full recovery, nothing lost";
  if (phase === "failed") return "and not recovered; see the worker's log";
  if (phase === "ready") return `state back after ${seconds(ready_s)}, catching up`;
  return "dead; its events wait safely in Kafka";
}
