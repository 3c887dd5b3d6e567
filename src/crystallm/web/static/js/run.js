/* One request under way: its events become cards, progress and words. */
import * as api from "./api.js";
import * as charts from "./charts.js";
import { $, fill, h } from "./dom.js";
import { shown } from "./cards.js";
import { Form } from "./form.js";
import * as powder from "./powder.js";
import { legend } from "./scene.js";
import { plural, sentence } from "./typeset.js";

const ENDS = {
  done: "",
  cancelled: "Cancelled: what was generated stays. ",
  interrupted: "The server ended before this was done: what was generated stays. ",
  failed: "",
};

export class Run {
  /** @param {import("./cards.js").Cards} cards @param {Form} form */
  constructor(cards, form) {
    Object.assign(this, { cards, form, id: null, request: null, stop: null, curve: [], width: 0 });
    $("cancel").addEventListener("click", () => this.cancel());
    $("resume").addEventListener("click", () => this.resume());
    $("zip").addEventListener("click", () => this.zip());
    $("copy").addEventListener("click", () => this.copy());
    addEventListener("resize", () => {
      this.width = 0;
      if (this.curve.length) this.draw();
      if (this.best) this.drawFit();
    });
  }

  /** Submit a request and follow its job. */
  begin(request) {
    return this.go(request, () => api.submit(request));
  }

  /** Resume an interrupted job: its earlier events come again. */
  async resume() {
    const { request, id, stop } = this;
    $("resume").disabled = true;
    $("job-error").hidden = true;
    try {
      const job = await api.resume(id);
      if (stop.signal.aborted) api.cancel(id).catch(() => {}); // left before the answer came
      else await this.go(request, async () => job);
    } catch (error) {
      if (!stop.signal.aborted) this.complain(error);
    } finally {
      $("resume").disabled = false;
    }
  }

  /** Follow a job from its first event on. */
  async go(request, send) {
    this.leave();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.request = request;
    this.id = null;
    this.total = request.simulations ?? request.n;
    this.progress = null;
    this.state = "sent";
    this.curve = [];
    this.best = null;
    this.began = performance.now();
    $("welcome").hidden = true;
    $("run").hidden = false;
    fill($("run-title"), Form.title(request));
    $("run-note").textContent = "";
    $("job-error").hidden = true;
    $("resume").hidden = true;
    $("curve").hidden = true;
    $("fit").hidden = true;
    $("copy").hidden = request.kind === "solve";
    fill($("legend"));
    $("cards").dataset.job = "";
    this.cards.clear(request.n ?? 0);
    this.words("Sending the request…");
    $("write").disabled = true;
    if ($("run").getBoundingClientRect().top > innerHeight * 0.7) $("run").scrollIntoView({ block: "start" });
    try {
      const job = await send();
      if (signal.aborted) {
        api.cancel(job.id).catch(() => {}); // left before the answer came
        return;
      }
      this.id = job.id;
      $("cards").dataset.job = job.id;
      $("cancel").hidden = false;
      await api.follow(job.id, (event, data) => !signal.aborted && this.handle(event, data), signal);
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    } finally {
      if (!signal.aborted) $("write").disabled = false;
    }
  }

  /** Let go of what is under way: the server need not go on with what nobody looks at. */
  leave() {
    if (this.stop && this.id && ["sent", "queued", "running"].includes(this.state)) api.cancel(this.id).catch(() => {});
    this.stop?.abort();
    $("write").disabled = false;
  }

  handle(event, data) {
    if (event === "position") this.words(data.position === 1 ? "Next in the queue" : `Number ${data.position} in the queue`);
    else if (event === "crystal") this.arrived(data);
    else if (event === "update") this.cards.update(data);
    else if (event === "curve") this.lower(data);
    else if (event === "progress") this.further(data);
    else if (event === "state") this.enter(data);
    else if (event === "lost") this.lose();
    else if (event === "found") this.find();
  }

  /** The server does not answer: say so, until it does. */
  lose() {
    this.held ??= $("status").textContent;
    $("status").textContent = "The server does not answer. Trying again…";
  }

  find() {
    if (this.held !== undefined) $("status").textContent = this.held;
    this.held = undefined;
  }

  enter(data) {
    this.state = data.state;
    if (data.note) fill($("run-note"), sentence(data.note));
    if (data.total) this.total = data.total;
    if (data.state === "queued") this.words("Waiting for its turn…");
    if (data.state === "running" && this.request.kind === "solve") this.words(data.note ? "Reporting the answers…" : "Fitting candidates…");
    else if (data.state === "running") this.words(data.note && !this.progress ? "Generating…" : data.note ? "Ranking…" : "Preparing…");
    if (!(data.state in ENDS)) return;
    $("cancel").hidden = true;
    $("resume").hidden = data.state !== "interrupted";
    this.cards.end();
    $("zip").disabled = ![...this.cards.crystals.values()].some((one) => one.structure);
    this.words(ENDS[data.state] + this.summary());
    if (data.state === "failed") this.fail(new api.Problem(data.message ?? "it failed", { field: data.field ?? null }));
    $("progress").classList.add("over");
  }

  arrived(crystal) {
    this.cards.add(crystal);
    if (crystal.composition && !$("legend").children.length) fill($("legend"), legend(crystal.composition.map(([symbol]) => symbol)));
    $("zip").disabled = false;
    if (crystal.fit && crystal.number === 0 && crystal.formula) {
      this.best = crystal;
      $("fit").hidden = false;
      this.drawFit();
    }
    if (this.request.kind === "solve") return;
    if (this.request.kind !== "search") this.words(`${this.cards.crystals.size} of ${plural(this.total, "crystal")}: ${crystal.space_group ?? "no crystal"}${crystal.plausible ? ", plausible" : ""}`);
  }

  lower(point) {
    this.curve.push(point);
    $("curve").hidden = false;
    this.draw();
  }

  /** The chart of the best answer of a pattern. */
  drawFit() {
    fill($("fit"), powder.figure(this.best, $("fit").clientWidth - 32));
  }

  draw() {
    if (!this.width) { // once: reading it makes the browser lay all cards out
      const { paddingLeft, paddingRight } = getComputedStyle($("curve"));
      this.width = $("curve").clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    }
    fill($("curve"), h("figcaption", {}, "Lowest energy so far, eV/atom"), charts.curve(this.curve, this.total, this.progress?.simulations, this.width));
  }

  /** How far a search is. */
  further(progress) {
    this.progress = progress;
    if (this.curve.length) this.draw();
    if (this.request.kind === "solve") {
      this.words(`${progress.candidates} of at most ${plural(progress.total, "candidate")} fitted`);
      return;
    }
    this.words(`${progress.simulations} of ${plural(this.total, "simulation")}: ${progress.plausible} plausible, ${this.cards.crystals.size} distinct, ${progress.energy_calls} energies`);
  }

  summary() {
    const all = [...this.cards.crystals.values()];
    if (this.request.kind === "solve") return all.length ? `${plural(all.length, "answer")} · ${((performance.now() - this.began) / 1000).toFixed(1)} s` : "";
    if (!all.length) return this.progress ? `No plausible crystal in ${plural(this.progress.simulations, "simulation")}` : "";
    const distinct = new Set(all.map((one) => one.cluster).filter((one) => one !== null && one !== undefined)).size;
    const parts = [plural(all.length, "crystal"), `${all.filter((one) => one.plausible).length} plausible`];
    if (distinct) parts.push(`${distinct} distinct`);
    parts.push(plural(new Set(all.map((one) => shown(one).space_group).filter(Boolean)).size, "space group"), `${((performance.now() - this.began) / 1000).toFixed(1)} s`);
    return parts.join(" · ");
  }

  words(text) {
    $("status").textContent = text;
    const counted = { search: "simulations", solve: "candidates" }[this.request.kind];
    const done = counted ? this.progress?.[counted] ?? 0 : this.cards.crystals.size;
    const total = this.request.kind === "solve" ? this.progress?.total : this.total;
    const share = total ? Math.min(1, done / total) : 0;
    const bar = $("progress");
    bar.classList.remove("over");
    bar.firstElementChild.style.width = `${Math.round(100 * share)}%`;
    bar.setAttribute("aria-valuenow", done);
    bar.setAttribute("aria-valuemax", total ?? 0);
  }

  /** An error: beside its field, or above the cards. */
  fail(error) {
    this.state = "failed";
    this.cards.end();
    $("cancel").hidden = true;
    if (error.field) {
      this.form.error(error.field, error.message);
      $(error.field)?.focus?.();
      if (!this.cards.crystals.size) { $("run").hidden = true; $("welcome").hidden = false; }
    } else {
      this.complain(error);
      if (error.status === 401) { $("key-field").hidden = false; $("key-field").closest("details").open = true; $("key").focus(); }
    }
    $("status").textContent = this.summary();
    $("progress").classList.add("over");
  }

  /** An error that ends nothing. */
  complain(error) {
    $("job-error").hidden = false;
    $("job-error").textContent = error.after ? `${error.message} (in about ${error.after} s)` : error.message;
  }

  async cancel() {
    $("cancel").disabled = true;
    try {
      if (this.id) await api.cancel(this.id);
    } catch (error) {
      this.fail(error);
    } finally {
      $("cancel").disabled = false;
    }
  }

  async zip() {
    try {
      await api.download(`api/v1/jobs/${this.id}/archive`);
    } catch (error) {
      this.complain(error);
    }
  }

  async copy() {
    const button = $("copy");
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    }
    setTimeout(() => { button.textContent = "Copy link"; }, 2000);
  }
}
