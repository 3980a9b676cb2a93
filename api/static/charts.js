// A small line for each metric of a job.

import { el, number, spoken } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 56;
const MOST_POINTS = 600;

export class Charts {
  constructor(place) {
    this.place = place;
    this.charts = new Map();
  }

  /** Take the metrics of a step; a step that comes again (a resumed job) replaces what came after it. */
  add(step, metrics) {
    for (const [name, value] of Object.entries(metrics)) {
      if (name === "epoch") continue; // the message tells it, and its line is always the same
      const chart = this.charts.get(name) ?? this.newChart(name);
      chart.points = chart.points.filter(([known]) => known < step);
      chart.points.push([step, value]);
      if (chart.points.length > MOST_POINTS) chart.points = chart.points.filter((_, index) => index % 2);
      chart.value.textContent = number(value);
      chart.path.setAttribute("d", line(chart.points));
    }
  }

  newChart(name) {
    const value = el("span", { className: "value" });
    const svg = document.createElementNS(SVG, "svg");
    const path = document.createElementNS(SVG, "path");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(path);
    this.place.append(el("div", { className: "chart" }, el("p", {}, el("span", {}, spoken(name)), value), svg));
    const chart = { points: [], value, path };
    this.charts.set(name, chart);
    return chart;
  }
}

/** Points as a path over the whole width; a value that is none leaves a gap. */
function line(points) {
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  if (values.length < 2) return "";
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const [from, to] = [points[0][0], points.at(-1)[0]];
  let pen = "M";
  return points.map(([step, value]) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const x = (WIDTH * (step - from)) / (to - from || 1);
    const y = HEIGHT - 3 - ((HEIGHT - 6) * (value - least)) / (most - least || 1);
    const point = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
    return point;
  }).join("");
}
