// The rail: publishing, the account of every event, the kill, click-through rates, latencies.

import { LineChart, roundUp } from "./charts.js";
import { count, ms, percent, seconds } from "./format.js";

const id = (name) => document.getElementById(name);
const FLIGHT_SECONDS = 90;

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
      label: (top) => `${count(top)} users`,
    });
    this.flightChart = new LineChart(id("flight-chart"), [{ name: "flight", area: true }], {
      height: 58,
      label: (top) => `${count(top)} in flight`,
    });
    this.ctrChart = new LineChart(id("ctr-chart"), [{ name: "popular" }, { name: "personal", area: true }], {
      height: null,
      label: (top) => percent(top),
    });
    id("publish").addEventListener("submit", (event) => this.publish(event));
    id("suggest").addEventListener("click", () => this.suggest());
    id("kill").addEventListener("click", () => this.kill());
  }

  hello({ history = [], suggestions = [], strap = "" }) {
    this.suggestions = suggestions;
    id("suggest").hidden = suggestions.length === 0;
    if (strap) put("strap", strap);
    this.flight = history.map((p) => [p.at, p.in_flight]);
    this.ctr = history.filter((p) => p.personal != null).map((p) => [p.at, p.popular, p.personal]);
    id("rail").hidden = false;
    id("kpis").hidden = false;
  }

  suggest() {
    if (!this.suggestions.length) return;
    this.suggested = ((this.suggested ?? -1) + 1) % this.suggestions.length;
    id("headline").value = this.suggestions[this.suggested];
  }

  async publish(event) {
    event.preventDefault();
    const field = id("headline");
    const title = field.value.trim();
    if (!title) return field.focus();
    const answer = await this.send("publish", { title });
    if (!answer) return;
    field.value = "";
    put("reach-note", "in the log; being embedded …");
    this.onPublished(answer.article_id);
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
    if (personal == null) return;
    const last = this.ctr.at(-1);
    if (last && f.at - last[0] < 900) return;
    this.ctr.push([f.at, popular, personal]);
    if (this.ctr.length > 900) this.ctr.splice(0, this.ctr.length - 900);
    const top = roundUp(1.1 * Math.max(...this.ctr.map((p) => Math.max(p[1] ?? 0, p[2] ?? 0))));
    this.ctrChart.draw(this.ctr, { top, from: this.ctr[0][0], to: f.at });
  }

  drawReach(reach) {
    put("reached", count(reach.users));
    id("reach").classList.toggle("live", reach.users > 0);
    const note = reach.users
      ? `the first after ${ms(reach.first_ms)} ms · half of them after ${ms(reach.half_ms)} ms`
      : `published ${seconds((Date.now() - reach.at) / 1000)} ago, in nobody's list yet`;
    put("reach-note", note);
    const curve = reach.curve.length ? [[0, 0], ...reach.curve] : [];
    if (curve.length) {
      const until = Math.max(500, curve.at(-1)[0] * 1.05);
      curve.push([until, reach.users]);
      this.reachChart.draw(curve, { top: roundUp(reach.users), from: 0, to: until, step: true });
    }
    if (reach.users && this.told.reach !== reach.article_id) {
      this.told.reach = reach.article_id;
      this.say(`Your headline reached its first reader's list after ${ms(reach.first_ms)} milliseconds.`);
    }
  }

  drawKill(kill) {
    if (!kill) return;
    const { phase } = kill;
    const panel = id("account");
    if (panel.dataset.phase !== phase) panel.dataset.phase = phase;
    id("kill").disabled = phase !== "accounted";
    id("recovery-seconds").hidden = false;
    put("recovery-seconds", seconds(phase === "accounted" ? kill.accounted_s : kill.down_s));
    put("recovery", story(kill));
    if (phase === "accounted" && this.told.kill !== kill.n) {
      this.told.kill = kill.n;
      this.say(`The worker recovered in ${seconds(kill.ready_s)}. Nothing was lost.`);
    }
  }
}

function story({ phase, ready_s }) {
  if (phase === "accounted") return `and all is well: nothing lost, state back after ${seconds(ready_s)}.`;
  if (phase === "ready") return `State back after ${seconds(ready_s)}, catching up …`;
  return "Dead. Events wait in Kafka, where they are safe.";
}
