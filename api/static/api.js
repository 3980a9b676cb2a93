// The API as the pages use it: JSON, files and event streams, with the key that the user gave.

const KEY = "dreamq.key";
export const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export class ApiError extends Error {
  constructor(status, { code, message, field }) {
    super(message);
    Object.assign(this, { status, code, field });
  }
}

let asking = null;

/** Ask for the key, once however many calls need it. */
function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    const input = document.getElementById("key-input");
    document.getElementById("key-error").hidden = !wrong;
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, input.value.trim());
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** Call the server; asks for a key as long as the server does. */
export async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { code: "unreachable", message: "The server does not answer. Is it still running?" });
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // Another call may have asked meanwhile, and been given a better key than this call had.
      if (key === sessionStorage.getItem(KEY)) await askForKey(Boolean(key));
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(response.status, answer.error ?? { code: "unknown", message: `The server answers ${response.status}.` });
  }
}

export const getJson = async (path) => (await call(path)).json();

export const postJson = async (path, body = {}) =>
  (await call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

/** Upload a file; its id. */
export const upload = async (file) => (await (await call("/v1/uploads", { method: "POST", body: file })).json()).id;

const pictures = new Map();

/** An address for <img> of an artifact: fetched with the key, kept by its hash. */
export function pictureOf(artifact) {
  if (!pictures.has(artifact.sha256)) {
    const loading = call(artifact.url).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
    loading.catch(() => pictures.delete(artifact.sha256));
    pictures.set(artifact.sha256, loading);
  }
  return pictures.get(artifact.sha256);
}

/** Save an artifact where the browser saves downloads. */
export async function download(artifact) {
  const blob = await (await call(artifact.url)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = artifact.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What happens to a job until it ends: {id, type, data}. A connection that breaks is made again. */
export async function* follow(jobId) {
  let last = null;
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await call(`/v1/jobs/${jobId}/events`, { headers });
      for await (const event of parse(response.body)) {
        last = event.id;
        yield event;
        if (event.type === "status" && ENDED.has(event.data.status)) return;
      }
      if (ENDED.has((await getJson(`/v1/jobs/${jobId}`)).status)) return;
    } catch (error) {
      if (error.status === 404) throw error;
    }
    await pause(2000);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      yield* blocks.map(parseBlock).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {});  // a stream that broke cannot be cancelled, and needs not
  }
}

function parseBlock(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
  }));
  return fields.data ? { id: fields.id, type: fields.event, data: JSON.parse(fields.data) } : null;
}
