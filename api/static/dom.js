// Elements, and the words for numbers and times. What comes from jobs is set as text, never as markup.

/** An element with properties and children: el("p", {className: "hint"}, "text"). */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** `max_side_px` as a label: "max side (px)". */
export const spoken = (name) => name.replace(/_(s|px|ms|mb)$/, " ($1)").replaceAll("_", " ");

/** A description, with what stands between backticks as code. */
export const prose = (text) => text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));

export const isPicture = (artifact) => /^image\/(png|jpeg|gif|webp)/.test(artifact.media_type);

export const isResult = (artifact) => artifact.name.startsWith("result");

/** The picture to show for a job: its result, else the newest one. */
export function bestPicture(job) {
  const pictures = job.artifacts.filter(isPicture);
  return pictures.find(isResult) ?? pictures.at(-1) ?? null;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) return Math.round(value).toLocaleString("en");
  return value.toPrecision(size < 0.001 ? 2 : 4);
}

export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; value >= 1000 && unit < 3; unit += 1) value /= 1000;
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString();
}

/** A value of a parameter or a summary as one line. */
export function plain(value) {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name} = ${plain(inner)}`).join(", ");
  return String(value);
}

/** Fill a <dl>. */
export function fillList(list, entries) {
  list.replaceChildren(...entries.flatMap(([name, value]) => [el("dt", {}, spoken(name)), el("dd", {}, plain(value))]));
}
