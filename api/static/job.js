// One job, as it grows: pictures as they come, progress, metrics, text, and the files in the end.

import { ENDED, call, download, follow, getJson, postJson } from "./api.js";
import { Charts } from "./charts.js";
import { byId, bytes, duration, el, fillList, isPicture, isResult, spoken } from "./dom.js";
import { Gallery } from "./gallery.js";

const MOST_TEXT_BYTES = 500_000;

const jobId = location.pathname.split("/").at(-1);
const gallery = new Gallery(byId("stage"), byId("canvas"), byId("caption"), byId("strip"));
const charts = new Charts(byId("charts"));
let job = null;

function showJob() {
  byId("job").hidden = false;
  byId("kind").textContent = spoken(job.kind);
  byId("status").textContent = job.cancel_requested && !ENDED.has(job.status) ? "stopping" : job.status;
  byId("status").dataset.status = job.status;
  byId("cancel").hidden = ENDED.has(job.status);
  byId("cancel").disabled = job.cancel_requested;
  byId("again").hidden = !ENDED.has(job.status);
  byId("error").hidden = !job.error;
  byId("error").textContent = job.error ? job.error.message : "";
  byId("warnings").replaceChildren(...job.warnings.map((warning) => el("li", {}, warning.message)));
  showWhen();
  showProgress(job.progress);
  showFiles();
  showDetails();
}

function showWhen() {
  const parts = [];
  if (job.queue_position) parts.push(job.queue_position === 1 ? "next in its queue" : `number ${job.queue_position} in its queue`);
  if (job.status === "waiting") parts.push(`waits for ${job.depends_on.length === 1 ? "another job" : `${job.depends_on.length} other jobs`}`);
  if (job.worker) parts.push(`on ${job.worker.name}`);
  if (job.started_at) {
    const end = job.finished_at ? Date.parse(job.finished_at) : Date.now();
    parts.push(`${job.finished_at ? "took" : "for"} ${duration(end - Date.parse(job.started_at))}`);
  }
  parts.push(...Object.entries(job.labels).map(([name, value]) => `${name} = ${value}`));
  if (job.attempt > 1) parts.push(`attempt ${job.attempt}`);
  byId("when").textContent = parts.join(" · ");
}

function showProgress({ step, total, message, metrics }) {
  const ended = ENDED.has(job.status);
  byId("progress-line").hidden = (!total && ended) || job.status === "succeeded";
  const bar = byId("bar");
  if (total) bar.value = step / total;
  else if (!ended && job.status === "running") bar.removeAttribute("value");
  else bar.value = 0;
  byId("steps").textContent = total ? `step ${step} of ${total}` : "";
  byId("message").textContent = message ?? "";
  charts.add(step, metrics ?? {});
  const done = total && !ended ? `${Math.floor((100 * step) / total)}% · ` : "";
  document.title = `${done}${spoken(job.kind)} · dreamq`;
}

function showFiles() {
  byId("files-section").hidden = !job.artifacts.length;
  const previews = job.artifacts.filter((artifact) => isPicture(artifact) && !isResult(artifact));
  const others = job.artifacts.filter((artifact) => !previews.includes(artifact));
  others.sort((one, other) => isResult(other) - isResult(one));
  byId("files").replaceChildren(...others.map(fileLine));
  byId("previews").replaceChildren(...previews.map(fileLine));
  byId("previews-section").hidden = !previews.length;
  byId("previews-count").textContent = previews.length === 1 ? "One picture" : `${previews.length} pictures`;
  job.artifacts.filter(isPicture).forEach((artifact) => gallery.add(artifact));
  showTextFile().catch(complain);
}

function fileLine(artifact) {
  const button = el("button", { type: "button", className: isResult(artifact) ? "result" : "" }, artifact.name);
  button.addEventListener("click", () => download(artifact).catch(complain));
  return el("li", {}, button, el("span", { className: "whisper" }, bytes(artifact.bytes)));
}

function showDetails() {
  fillList(byId("params"), Object.entries(job.params));
  for (const part of ["summary", "provenance"]) {
    fillList(byId(part), Object.entries(job[part]));
    byId(`${part}-section`).hidden = !Object.keys(job[part]).length;
  }
  const attempts = job.attempts.map((attempt) => [`attempt ${attempt.attempt}`, `${attempt.worker}${attempt.reason ? `: ${spoken(attempt.reason)}` : ""}`]);
  fillList(byId("attempts"), attempts);
  byId("attempts-section").hidden = attempts.length < 2;
}

function complain(error) {
  const place = job ? byId("error") : byId("missing");
  place.textContent = error.message;
  place.hidden = false;
}

async function refresh() {
  job = await getJson(`/v1/jobs/${jobId}`);
  showJob();
}

let streamed = false;
let textFile = null;

/** Text as it is written, a piece at a time. */
function addText(chunk) {
  const text = byId("text");
  const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
  if (!streamed) text.textContent = "";
  streamed = true;
  text.hidden = false;
  text.append(chunk);
  if (atEnd) text.scrollTop = text.scrollHeight;
}

/** The newest text file of a job that writes its text into files: its result, or its samples so far. */
async function showTextFile() {
  const texts = job.artifacts.filter((artifact) => artifact.media_type.startsWith("text/plain") && artifact.bytes < MOST_TEXT_BYTES);
  const newest = texts.find(isResult) ?? texts.at(-1);
  if (!newest || streamed || textFile === newest.sha256) return;
  textFile = newest.sha256;
  const written = await (await call(newest.url)).text();
  if (streamed || textFile !== newest.sha256) return;
  byId("text").textContent = written;
  byId("text").hidden = false;
}

async function watch() {
  await refresh();
  for await (const event of follow(jobId)) {
    if (event.type === "progress") {
      job.progress = event.data;
      showProgress(event.data);
    } else if (event.type === "artifact") {
      job.artifacts = [...job.artifacts.filter(({ name }) => name !== event.data.name), event.data];
      showFiles();
    } else if (event.type === "text") {
      addText(event.data.text);
    } else {
      // Also on replay: what the job is now counts, not what it was when the event came.
      await refresh();
    }
  }
  await refresh();
}

byId("cancel").addEventListener("click", async () => {
  byId("cancel").disabled = true;
  try {
    job = await postJson(`/v1/jobs/${jobId}/cancel`);
    showJob();
  } catch (error) {
    byId("cancel").disabled = false;
    complain(error);
  }
});

byId("again").addEventListener("click", () => {
  sessionStorage.setItem("dreamq.again", JSON.stringify({ kind: job.kind, params: job.params }));
  location.assign("/");
});

setInterval(() => job && !ENDED.has(job.status) && showWhen(), 1000);

watch().catch(complain);
