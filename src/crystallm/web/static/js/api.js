/* The server: requests, events as they come, and its errors. */

/** An answer that is no success. */
export class Problem extends Error {
  constructor(message, { field = null, status = 0, after = null } = {}) {
    super(message);
    Object.assign(this, { field, status, after });
  }
}

const KEY = "crystallm-key";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch { /* storage may be forbidden: the key holds for this page then */ }

/** Take a key for this tab. */
export function setKey(value) {
  key = value.trim();
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch { /* as above */ }
}

async function send(path, options = {}) {
  const headers = { ...(options.headers ?? {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server does not answer: is it running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Problem(answer?.error?.message ?? `the server answered ${response.status}`, {
    field: answer?.error?.field ?? null,
    status: response.status,
    after: Number(response.headers.get("Retry-After")) || null,
  });
}

const json = async (path, options) => (await send(path, options)).json();

export const about = () => json("api/v1/about");
export const reading = (query, signal) => json(`api/v1/reading?${new URLSearchParams(query)}`, { signal });
export const submit = (body) =>
  json("api/v1/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
/** Resume a job that the end of the server has interrupted. */
export const resume = (id) =>
  json(`api/v1/jobs/${id}/resume`, { method: "POST", headers: { "Content-Type": "application/json" } });
export const cancel = (id) => json(`api/v1/jobs/${id}`, { method: "DELETE" });
export const pattern = (id, number, relaxed) => json(`api/v1/jobs/${id}/crystals/${number}/pattern?relaxed=${relaxed}`);

/** Save what the server gives under this path as a file. */
export async function download(path) {
  const response = await send(path);
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "crystal";
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const TRIES = 6; // to follow events, before the state is requested
const POLL = 5000; // milliseconds between one state and the next

/** Whether to try again is useless; a proxy answers 502 while its server restarts. */
const isFinal = (error) => error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429;
const over = (state) => !["queued", "running"].includes(state);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Follow a job until it is over, after a broken connection from the last event on; without events, by its state.
 * @param {(event: string, data: any) => void} report called with each event, each one once; with "lost" when the server
 *   does not answer, and with "found" when it does
 */
export async function follow(id, report, signal) {
  let last = "0";
  const seen = { crystals: new Map(), curve: 0 };
  for (let failures = 0; failures <= TRIES && !signal.aborted;) {
    try {
      const response = await send(`api/v1/jobs/${id}/events`, { signal, headers: { "Last-Event-ID": last } });
      report("found");
      for await (const { number, event, data } of events(response.body)) {
        failures = 0;
        if (number) last = number;
        if (event === "crystal") seen.crystals.set(data.number, "");
        if (event === "curve") seen.curve += 1;
        report(event, data);
        if (event === "state" && over(data.state)) return;
      }
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      if (isFinal(error)) throw error;
      failures += 1;
      report("lost");
    }
    await wait(Math.min(400 * 2 ** failures, 10_000));
  }
  await poll(id, report, signal, seen);
}

/** Report what is new in a job's state. */
async function poll(id, report, signal, seen) {
  for (let failures = 0; !signal.aborted; await wait(POLL)) {
    let job;
    try {
      job = await json(`api/v1/jobs/${id}`, { signal });
      failures = 0;
      report("found");
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      failures += 1;
      report("lost");
      if (isFinal(error) || failures > TRIES) throw error;
      continue;
    }
    for (const crystal of job.crystals) {
      const before = seen.crystals.get(crystal.number);
      const now = JSON.stringify(crystal);
      if (before === undefined) report("crystal", crystal);
      else if (before !== now) report("update", [crystal]);
      seen.crystals.set(crystal.number, now);
    }
    for (const point of job.curve.slice(seen.curve)) report("curve", point);
    seen.curve = job.curve.length;
    if (job.progress) report("progress", job.progress);
    report("state", { state: job.state, note: job.note, total: job.total, message: job.message });
    if (job.position) report("position", { position: job.position });
    if (over(job.state)) return;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const found = { number: "", event: "", data: "" };
      for (const line of held.slice(0, end).split("\n")) {
        if (line.startsWith("id: ")) found.number = line.slice(4);
        if (line.startsWith("event: ")) found.event = line.slice(7);
        if (line.startsWith("data: ")) found.data = line.slice(6);
      }
      held = held.slice(end + 2);
      if (found.event) yield { ...found, data: JSON.parse(found.data) };
    }
  }
}
