// A form from a kind's JSON schema: a field for each parameter; what is left alone is left to the server.

import { getJson, upload } from "./api.js";
import { el, prose, spoken } from "./dom.js";

/** What a kind is about, though it can be left out; all else is one click away. */
const MAIN = ["model_job", "prompt", "network", "corpus", "mode"];
const COMMON = ["seed", "time_limit_s"];

/** The shapes that a value may have, references resolved and null left out. */
function branches(field, definitions) {
  if (field.$ref) return branches(definitions[field.$ref.split("/").at(-1)], definitions);
  const union = field.anyOf ?? field.oneOf;
  if (union) return union.flatMap((member) => branches(member, definitions));
  return field.type === "null" ? [] : [field];
}

const choicesOf = (shape) => shape.enum ?? ("const" in shape ? [shape.const] : null);

/** One parameter of the form. */
class Field {
  constructor(name, schema, definitions, required) {
    this.name = name;
    this.required = required;
    this.schema = schema;
    this.shapes = branches(schema, definitions);
    this.list = this.shapes.find((shape) => shape.type === "array");
    this.object = this.shapes.find((shape) => shape.type === "object");
    this.nullable = (schema.anyOf ?? []).some((shape) => shape.type === "null");
    this.inner = this.list ? branches(this.list.items ?? {}, definitions) : [];
    this.plain = this.shapes.filter((shape) => shape.type !== "array" && shape.type !== "object");
    this.id = `param-${name}`;
    this.error = el("p", { className: "error", id: `${this.id}-error`, hidden: true });
    this.element = this.build();
  }

  get format() {
    return [...this.plain, ...this.inner].find((shape) => shape.format)?.format;
  }

  get media() {
    return [...this.plain, ...this.inner].find((shape) => shape.media)?.media ?? "";
  }

  get builtIn() {
    return this.plain.find((shape) => shape.built_in)?.built_in ?? [];
  }

  get important() {
    return this.required || MAIN.includes(this.name) || (this.format === "upload" && this.media !== "*/*");
  }

  build() {
    const input = this.input = this.control();
    input.id = this.id;
    input.setAttribute("aria-describedby", `${this.id}-error`);
    input.addEventListener("input", () => this.complain(""));
    const label = el("label", { htmlFor: this.id }, spoken(this.name));
    const hint = el("p", { className: "hint" }, ...prose(this.schema.description ?? ""));
    if (input.type === "checkbox") {
      return el("div", { className: "field" }, el("div", { className: "check" }, input, label), hint, this.error);
    }
    return el("div", { className: "field" }, label, this.frame(input), hint, this.error);
  }

  control() {
    const common = { name: this.name, required: this.required };
    const initial = this.schema.default ?? null;
    if (this.format === "upload") {
      return el("input", { ...common, type: "file", accept: this.media === "*/*" ? "" : this.media, multiple: Boolean(this.list) });
    }
    const enumeration = this.plain.length === 1 && !this.list && !this.object ? choicesOf(this.plain[0]) : null;
    if (enumeration) {
      const options = enumeration.map((value) => el("option", { value: JSON.stringify(value), selected: value === initial }, String(value) || "–"));
      if (initial === null && !this.required) options.unshift(el("option", { value: "", selected: true }, "not set"));
      return el("select", common, ...options);
    }
    if (this.shapes.length === 1 && this.shapes[0].type === "boolean") {
      return el("input", { ...common, type: "checkbox", checked: initial === true });
    }
    const numeric = this.plain.length && !this.list && !this.object && this.plain.every((shape) => /integer|number/.test(shape.type));
    // Where null means something, and is not what counts when nothing is said, it must be possible to type it.
    const sayNull = this.nullable && this.schema.default !== null;
    if (numeric && !sayNull) {
      const [shape] = this.plain;
      const step = shape.type === "integer" ? "1" : "any";
      const { minimum = "", maximum = "" } = shape;
      return el("input", { ...common, type: "number", step, min: minimum, max: maximum, placeholder: shownDefault(initial) });
    }
    if (/prompt|text/.test(this.name)) return el("textarea", { ...common, placeholder: shownDefault(initial) });
    const placeholder = shownDefault(initial) || this.example() || (numeric ? "a number, or null" : "");
    return el("input", { ...common, type: "text", placeholder });
  }

  example() {
    const presets = this.plain.flatMap((shape) => choicesOf(shape) ?? []);
    const forms = this.object ? ["name=value, name=value"] : this.list ? ["one, another"] : [];
    return [...presets, ...forms].join(" or ");
  }

  /** A drop zone around a file input, a list of jobs behind a job's input; anything else as it is. */
  frame(input) {
    if (this.format === "job") {
      const jobs = el("datalist", { id: `${this.id}-jobs` });
      input.setAttribute("list", jobs.id);
      getJson("/v1/jobs?status=succeeded&limit=50").then((page) => {
        jobs.append(...page.jobs.map((job) => el("option", { value: job.id }, `${job.kind}, ${job.created_at.slice(0, 16).replace("T", " ")}`)));
      }).catch(() => {});  // a convenience only: an id can be typed as well
      return el("div", {}, input, jobs);
    }
    if (input.type !== "file") return input;
    const shown = el("div", { className: "shown" });
    const text = this.dropText = el("p", {}, "Drop a file here, or choose one");
    const zone = el("div", { className: this.required ? "drop" : "drop optional" }, shown, text, input);
    for (const [event, over] of [["dragenter", true], ["dragleave", false], ["drop", false]]) {
      zone.addEventListener(event, () => zone.classList.toggle("over", over));
    }
    input.addEventListener("change", () => {
      const files = [...input.files];
      shown.replaceChildren(...files.filter((file) => file.type.startsWith("image/")).map(thumbnail));
      text.textContent = files.map((file) => file.name).join(", ") || "Drop a file here, or choose one";
      if (this.chosen) this.chosen.value = "";
      this.complain("");
    });
    return this.builtIn.length ? el("div", {}, zone, this.offer(input)) : zone;
  }

  /** What can be named instead of a file. */
  offer(input) {
    const names = this.builtIn.map((name) => el("option", { value: name }, name));
    this.chosen = el("select", {}, el("option", { value: "", selected: true }, "or one that is built in"), ...names);
    this.chosen.setAttribute("aria-label", `${spoken(this.name)}, built in`);
    this.chosen.addEventListener("change", () => {
      input.required = this.required && !this.chosen.value;
      this.complain("");
    });
    return this.chosen;
  }

  complain(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
    this.input.setAttribute("aria-invalid", String(Boolean(message)));
    if (message) this.element.closest("details")?.setAttribute("open", "");
  }

  /** The value to send; undefined when the field was left alone. Files are uploaded. */
  async value() {
    const { input } = this;
    if (input.type === "file") {
      if (this.chosen?.value) return this.chosen.value;
      if (!input.files.length) return this.kept;
      const ids = await Promise.all([...input.files].map(upload));
      return this.list ? ids : ids[0];
    }
    if (input.type === "checkbox") return input.checked === (this.schema.default ?? false) ? undefined : input.checked;
    const text = input.value.trim();
    if (!text) return undefined;
    if (input.tagName === "SELECT") {
      const value = JSON.parse(text);
      return value === this.schema.default ? undefined : value;
    }
    if (input.tagName === "TEXTAREA") return input.value;
    return this.parse(text);
  }

  parse(text) {
    if (text === "null" && this.nullable) return null;
    if ((this.object || this.list) && /^[{[]/.test(text)) return parsedJson(text);
    if (this.object && text.includes("=")) {
      return Object.fromEntries(text.split(",").map((part) => {
        const [name, ...rest] = part.split("=");
        return [name.trim(), scalar(rest.join("=").trim(), [{ type: "number" }])];
      }));
    }
    if (this.list && !(this.plain.length && !text.includes(","))) {
      return text.split(",").map((part) => scalar(part.trim(), this.inner));
    }
    return scalar(text, this.plain);
  }

  /** Use the uploads of another job, unless other files are chosen. */
  keep(uploadIds) {
    this.kept = uploadIds;
    this.input.required = false;
    this.dropText.textContent = "As in the earlier job; drop another to replace it";
  }

  /** Show a value that another job had. */
  fill(value) {
    if (value === null || value === undefined) return;
    if (this.builtIn.includes(value)) {
      this.chosen.value = value;
      this.input.required = false;
    } else if (this.input.type === "file") this.keep(value);
    else if (this.input.type === "checkbox") this.input.checked = value;
    else if (this.input.tagName === "SELECT") this.input.value = JSON.stringify(value);
    else this.input.value = shownDefault(value).replaceAll(" = ", "=");
  }
}

function shownDefault(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name}=${inner}`).join(", ");
  return String(value);
}

/** JSON that was typed; what is none goes as it is, and the server says so. */
function parsedJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A typed word as a number where a number is wanted; what it is not, the server says. */
function scalar(text, shapes) {
  if (shapes.some((shape) => /integer|number/.test(shape.type)) && text !== "" && Number.isFinite(Number(text))) return Number(text);
  return text;
}

function thumbnail(file) {
  const image = el("img", { alt: file.name, src: URL.createObjectURL(file) });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.addEventListener("error", () => image.remove(), { once: true });
  return image;
}

/** The form of one kind. `element` is its fields; `params()` what to send. */
export class KindForm {
  constructor({ schema }) {
    const definitions = schema.$defs ?? {};
    const required = new Set(schema.required ?? []);
    const names = Object.keys(schema.properties);
    names.sort((one, other) => COMMON.includes(one) - COMMON.includes(other));
    this.fields = names.map((name) => new Field(name, schema.properties[name], definitions, required.has(name)));
    const first = this.fields.filter((field) => field.important);
    const rest = this.fields.filter((field) => !field.important);
    const more = el("details", {}, el("summary", {}, "All parameters"), el("div", {}, ...rest.map((field) => field.element)));
    this.element = el("div", { className: "params" }, ...first.map((field) => field.element), rest.length ? more : null);
    if (!first.length) more.open = true;
  }

  /** Check what needs no server; the first field that is wrong is shown. */
  check() {
    for (const field of this.fields) {
      const { validity } = field.input;
      if (validity.valueMissing) field.complain("This is needed.");
      else if (!validity.valid) field.complain(field.input.validationMessage);
    }
    return !this.showFirstError();
  }

  showFirstError() {
    const wrong = this.fields.find((field) => !field.error.hidden);
    wrong?.input.focus();
    return wrong;
  }

  async params() {
    const values = await Promise.all(this.fields.map(async (field) => [field.name, await field.value()]));
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  }

  /** Show what the server refused, by the field it names; false when the form has no such field. */
  refuse(error) {
    const name = String(error.field ?? "").split(".")[0];
    const field = this.fields.find((candidate) => candidate.name === name);
    field?.complain(error.message);
    return Boolean(this.showFirstError());
  }

  fill(params) {
    for (const field of this.fields) field.fill(params[field.name]);
  }
}
