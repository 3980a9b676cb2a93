// The first page: a form for a new job, and the jobs there are.

import { ENDED, getJson, pictureOf, postJson } from "./api.js";
import { ago, bestPicture, byId, el, prose, spoken } from "./dom.js";
import { KindForm } from "./form.js";

const LOOK_EVERY_MS = 3000;

// A new job

async function showKinds() {
  const { kinds } = await getJson("/v1/kinds");
  const wanted = recalled();
  const first = kinds.find(({ kind }) => kind === wanted?.kind) ?? kinds.find(({ kind }) => kind === "deepdream") ?? kinds[0];
  byId("kinds").replaceChildren(...kinds.map((kind) => {
    const radio = el("input", { type: "radio", name: "kind", checked: kind === first });
    radio.addEventListener("change", () => showForm(kind));
    return el("label", {}, radio, el("span", {}, spoken(kind.kind)));
  }));
  if (first) showForm(first, wanted?.params);
}

/** The parameters of a job that is to be made again; its page left them here. */
function recalled() {
  const left = sessionStorage.getItem("dreamq.again");
  sessionStorage.removeItem("dreamq.again");
  return left ? JSON.parse(left) : null;
}

function showForm(kind, params) {
  const form = byId("form");
  const fields = new KindForm(kind);
  const button = el("button", { type: "submit", className: "primary" }, "Begin");
  const message = el("p", { className: "error", role: "alert" });
  byId("kind-text").replaceChildren(...prose(kind.description.split("\n\n")[0]));
  form.replaceChildren(fields.element, el("div", { className: "submit" }, button, message));
  if (params) fields.fill(params);
  form.onsubmit = async (event) => {
    event.preventDefault();
    message.textContent = "";
    if (!fields.check()) return;
    button.disabled = true;
    button.textContent = "Sending";
    try {
      const job = await postJson("/v1/jobs", { kind: kind.kind, params: await fields.params() });
      location.assign(`/jobs/${job.id}`);
    } catch (error) {
      if (!fields.refuse(error)) message.textContent = error.message;
    } finally {
      button.disabled = false;
      button.textContent = "Begin";
    }
  };
}

// The jobs there are

const rows = new Map();
let older = [];
let cursor = null;

function filter() {
  const status = byId("filter").value;
  return status ? `&status=${status}` : "";
}

async function look() {
  try {
    const page = await getJson(`/v1/jobs?limit=20${filter()}`);
    if (!older.length) cursor = page.next_cursor;
    const newest = new Set(page.jobs.map((job) => job.id));
    const shown = [...page.jobs, ...older.filter((job) => !newest.has(job.id))];
    byId("jobs").replaceChildren(...shown.map(row));
    byId("empty").hidden = shown.length > 0;
    byId("more").hidden = !cursor;
    byId("list-error").hidden = true;
    showWorkers((await getJson("/v1/workers")).workers);
  } catch (error) {
    byId("list-error").textContent = error.message;
    byId("list-error").hidden = false;
  }
}

/** What each worker does, or why it takes no jobs: `starting`, `draining`, `drained`, `quarantined`. */
const activity = (worker) => (worker.lost ? "lost" : worker.jobs?.length ? "busy" : worker.state === "ready" ? "idle" : worker.state);

function showWorkers(workers) {
  const counts = new Map();
  for (const worker of workers) counts.set(activity(worker), (counts.get(activity(worker)) ?? 0) + 1);
  const told = [...counts].map(([what, count]) => `${count} ${what}`).join(", ");
  byId("workers").textContent = workers.length ? `workers: ${told}` : "no worker is there: jobs wait";
}

/** A job's line in the list; one element per job, so that pictures don't flicker. */
function row(job) {
  const known = rows.get(job.id) ?? newRow(job);
  rows.set(job.id, known);
  known.status.textContent = job.status;
  known.status.dataset.status = job.status;
  const { step, total, message } = job.progress;
  known.bar.hidden = ENDED.has(job.status) || !total;
  known.bar.value = total ? step / total : 0;
  known.about.textContent = [ago(job.created_at), job.error?.message ?? (ENDED.has(job.status) ? "" : message), labels(job)].filter(Boolean).join(" · ");
  showThumbnail(known, bestPicture(job));
  return known.element;
}

const labels = (job) => Object.entries(job.labels).map(([name, value]) => `${name}=${value}`).join(", ");

function newRow(job) {
  const status = el("span", { className: "status" });
  const about = el("span", { className: "job-about" });
  const bar = el("progress", { max: 1 });
  const thumb = el("span", { className: "thumb none", "aria-hidden": "true" }, job.kind[0]);
  const link = el("a", { href: `/jobs/${job.id}` }, thumb, el("span", {}, el("span", { className: "job-kind" }, spoken(job.kind)), about, bar), status);
  return { element: el("li", {}, link), status, about, bar, thumb, sha256: null };
}

async function showThumbnail(known, artifact) {
  if (!artifact || known.sha256 === artifact.sha256) return;
  known.sha256 = artifact.sha256;
  const source = await pictureOf(artifact).catch(() => null);
  if (!source || known.sha256 !== artifact.sha256) return;
  const image = el("img", { className: "thumb", alt: "", src: source });
  await image.decode().catch(() => {});
  known.thumb.replaceWith(image);
  known.thumb = image;
}

byId("more").addEventListener("click", async () => {
  const page = await getJson(`/v1/jobs?limit=20&cursor=${cursor}${filter()}`);
  older = [...older, ...page.jobs];
  cursor = page.next_cursor;
  look();
});

byId("filter").addEventListener("change", () => {
  older = [];
  look();
});

document.addEventListener("visibilitychange", () => document.hidden || look());

async function keepLooking() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

await showKinds().catch((error) => {
  byId("kind-text").textContent = error.message;
});
keepLooking();
