// Small charts as SVG paths: no axis library, a few points a second.

const NS = "http://www.w3.org/2000/svg";

function svg(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/**
 * Lines over time in a box as wide as the container and `height` pixels high (null: as high as the
 * container). Each series is {name, area}; the class of its path is `line NAME`. `draw(points, {top,
 * from, to})`: points are [x, value, value, ...]. `label(top)` names the upper end of the scale, `end`
 * the right one.
 */
export class LineChart {
  constructor(container, series, { height, label = null }) {
    this.height = height;
    this.label = label;
    this.container = container;
    this.root = svg("svg", { "aria-hidden": "true", focusable: "false" });
    this.grid = svg("path", { class: "grid" });
    if (height) this.root.setAttribute("height", height);
    this.root.append(this.grid);
    this.series = series.map(({ name, area }) => {
      const fill = area ? svg("path", { class: `area ${name}` }) : null;
      const line = svg("path", { class: `line ${name}` });
      const dot = svg("circle", { class: `dot ${name}`, r: 3.5, visibility: "hidden" });
      if (fill) this.root.append(fill);
      this.root.append(line, dot);
      return { fill, line, dot };
    });
    this.text = svg("text", { class: "axis" });
    this.end = svg("text", { class: "axis", "text-anchor": "end" });
    this.root.append(this.text, this.end);
    container.append(this.root);
    this.last = null;
    new ResizeObserver(() => this.last && this.draw(...this.last)).observe(container);
  }

  draw(points, { top, from, to, step = false, end = "" }) {
    this.last = [points, { top, from, to, step, end }];
    const width = this.container.clientWidth;
    const h = this.height ?? this.container.clientHeight;
    if (!width || !h || points.length === 0) return;
    const pad = 5;
    this.root.setAttribute("height", h);
    this.root.setAttribute("viewBox", `0 0 ${width} ${h}`);
    this.root.setAttribute("width", width);
    const span = Math.max(to - from, 1e-9);
    const x = (t) => (pad + ((t - from) / span) * (width - 2 * pad)).toFixed(1);
    const y = (v) => (h - pad - (Math.min(v, top) / (top || 1)) * (h - 2 * pad)).toFixed(1);
    this.grid.setAttribute("d", [0, 0.5, 1].map((g) => `M${pad} ${y(g * top)}H${width - pad}`).join(""));
    this.series.forEach(({ fill, line, dot }, i) => {
      const seen = points.filter((p) => p[i + 1] != null);
      if (seen.length === 0) {
        line.setAttribute("d", "");
        dot.setAttribute("visibility", "hidden");
        return;
      }
      const path = seen
        .map((p, n) => (n === 0 ? `M${x(p[0])} ${y(p[i + 1])}` : step ? `H${x(p[0])}V${y(p[i + 1])}` : `L${x(p[0])} ${y(p[i + 1])}`))
        .join("");
      const end = seen.at(-1);
      line.setAttribute("d", path);
      fill?.setAttribute("d", `${path}L${x(end[0])} ${y(0)}L${x(seen[0][0])} ${y(0)}Z`);
      dot.setAttribute("visibility", "visible");
      dot.setAttribute("cx", x(end[0]));
      dot.setAttribute("cy", y(end[i + 1]));
    });
    if (this.label) {
      this.text.textContent = this.label(top);
      this.text.setAttribute("x", pad);
      this.text.setAttribute("y", Number(y(top)) + 12);
    }
    this.end.textContent = end;
    this.end.setAttribute("x", width - pad);
    this.end.setAttribute("y", h - pad - 4);
  }
}

/** The next round number at or above `value`, so that a scale does not twitch. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((m) => m * power).find((m) => m >= value * 0.9999);
}
