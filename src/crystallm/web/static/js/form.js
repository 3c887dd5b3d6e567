/* The request form: fields, the formula as it is interpreted while one types, errors, and the address. */
import * as api from "./api.js";
import { $, fill, h, later } from "./dom.js";
import { GroupField } from "./groups.js";
import { PatternField } from "./powder.js";
import { legend } from "./scene.js";
import { build, withElement } from "./table.js";
import { formula as typeset, group, plural } from "./typeset.js";

const FIELDS = ["formula", "z", "n", "space_group", "conditions", "energy", "relax", "crystals_from", "temperature", "simulations", "seed", "model", "pattern", "wavelength", "kind"];
/** Fields as they are called in an address, and what they are where it does not say. */
const ADDRESS = { formula: "", z: "", space_group: "", n: "8", temperature: "1", crystals_from: "auto", conditions: "", energy: "", relax: "", search: "", simulations: "100", seed: "", model: "" };

export class Form {
  /** @param {(request: object) => void} submit called with the request, its seed drawn */
  constructor(about, submit) {
    this.about = about;
    this.submit = submit;
    this.form = $("request");
    this.groups = new GroupField($("space_group"), $("groups"), about.space_groups, () => this.changed("space_group"));
    this.table = build($("elements"), about.elements, (symbol) => this.add(symbol));
    this.read = later(220, () => this.reading());
    this.pattern = new PatternField(about.limits.body, () => this.changed("pattern"), (message) => this.error("pattern", message));
    this.lists();
    this.wire();
  }

  lists() {
    const { about } = this;
    fill($("energy"), h("option", { value: "" }, "agreement of samples"),
      about.energies.map((name) => h("option", { value: name }, `energy (${name.replace(/^.*:/, "")})`)));
    $("energy-field").hidden = !about.energies.length;
    fill($("model"), about.models.map(({ name, parameters }) =>
      h("option", { value: name }, `${name} (${(parameters / 1e6).toFixed(1)} M parameters)`)));
    $("model-field").hidden = about.models.length < 2;
    $("key-field").hidden = !about.keys;
    if (about.keys) $("key-field").closest("details").open = true;
    $("search-line").hidden = !about.search;
    $("n").max = about.limits.samples;
    $("simulations").max = about.limits.simulations;
  }

  wire() {
    $("formula").addEventListener("input", () => this.changed("formula"));
    for (const id of ["z", "n", "conditions", "energy", "seed", "model", "relax", "crystals_from", "search", "simulations"]) $(id).addEventListener("input", () => this.changed(id));
    $("temperature").addEventListener("input", () => { $("temperature-shown").textContent = Number($("temperature").value).toFixed(2); });
    $("key").addEventListener("change", () => { api.setKey($("key").value); this.reading(); });
    const opener = $("open-table");
    opener.addEventListener("click", () => this.showTable($("elements").hidden));
    document.addEventListener("click", (event) => {
      if (!$("elements").hidden && !event.target.closest("#elements, .with-button")) this.showTable(false);
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !$("elements").hidden) { this.showTable(false); opener.focus(); }
    });
    $("wavelength").addEventListener("input", () => this.error("wavelength", ""));
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      this.showTable(false);
      const request = this.request();
      if (request) this.submit(this.pattern.chosen ? { ...request, ...await this.pattern.values() } : request);
    });
  }

  /** The properties that the chosen model takes. */
  properties() {
    return this.about.models.find(({ name }) => name === $("model").value)?.conditions ?? [];
  }

  showTable(open) {
    $("elements").hidden = !open;
    $("open-table").setAttribute("aria-expanded", String(open));
  }

  add(symbol) {
    $("formula").value = withElement($("formula").value, symbol);
    this.changed("formula");
  }

  changed(name) {
    this.error(name, "");
    const energy = $("energy").value !== "";
    $("relax-line").hidden = !energy;
    const search = this.about.search && $("search").checked;
    $("simulations-field").hidden = !search;
    const solve = this.pattern.chosen;
    const properties = this.properties();
    $("conditions-field").hidden = search || solve || !properties.length;
    $("conditions").placeholder = properties.map(({ name, mean }) => `${name}=${mean.toPrecision(2)}`).slice(0, 2).join(" ");
    $("conditions-hint").textContent = properties.map(({ name, unit, lowest, highest }) =>
      `${name}: ${lowest.toPrecision(3)} to ${highest.toPrecision(3)} ${unit}`.trim()).join("; ");
    $("n").closest(".field").hidden = search || solve;
    $("energy-field").hidden = solve || !this.about.energies.length;
    $("write").textContent = solve ? "Solve the pattern" : "Generate crystals";
    if (search) {
      $("relax-line").hidden = true;
      if (name === "search") $("simulations-field").closest("details").open = true;
    }
    if (["formula", "z", "space_group", "pattern"].includes(name)) this.read();
  }

  /** The first of several formulas that a pattern may have. */
  first(text) {
    return (this.pattern.chosen ? text.split(",")[0] : text).trim();
  }

  /** Ask how the formula is understood, and show it. */
  async reading() {
    this.pending?.abort();
    this.pending = new AbortController();
    const formula = this.first($("formula").value);
    const wrong = (name, message) => {
      for (const field of ["formula", "z", "space_group"]) this.error(field, field === name ? message : "");
    };
    this.table.mark(formula.match(/[A-Z][a-z]?/g) ?? []);
    if (!formula) {
      this.error("z", "");
      this.error("space_group", "");
      fill($("reading"));
      this.groups.learn(null);
      return;
    }
    const query = { formula, z: $("z").value, space_group: $("space_group").value.trim() };
    try {
      const found = await api.reading(query, this.pending.signal);
      wrong("", "");
      this.understood(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.field !== "space_group") fill($("reading"));
      wrong(error.field ?? "formula", error.message);
      if (error.field === "space_group") this.without(query, this.pending.signal);
    }
  }

  /** The same without the group, which cannot hold the cell: so its list can say which can. */
  async without(query, signal) {
    try {
      this.understood(await api.reading({ ...query, space_group: "" }, signal));
    } catch { /* the error that stands there says enough */ }
  }

  understood(found) {
    const symbols = found.composition.map(([symbol]) => symbol);
    const open = found.z === null;
    fill($("reading"),
      h("span", { class: "cell-formula" }, typeset(found.formula)),
      h("span", {}, open ? "is the formula unit, Z is left open" : `${plural(found.n_atoms, "atom")} in the cell`),
      !open && found.z > 1 && h("span", {}, `= ${found.z} × `, typeset(found.formula_unit)),
      h("span", {}, `${found.groups.length} of 230 groups can hold it`),
      h("span", { class: "chips" }, legend(symbols)));
    this.groups.learn(found.groups, found.misfits, found.group);
    const chosen = found.default_z === "auto" && $("z").value === "auto" ? "" : $("z").value; // one name for one thing
    const possible = new Set(found.z_possible);
    const values = [...new Set([...found.z_possible, ...Array.from({ length: 12 }, (_, i) => i + 1)])].sort((a, b) => a - b);
    if (chosen && chosen !== "auto" && !values.includes(Number(chosen))) values.push(Number(chosen));
    const defaultLabel = found.default_z === "auto" ? "likely ones" : "as written";
    fill($("z"), h("option", { value: "" }, defaultLabel),
      found.default_z !== "auto" && h("option", { value: "auto" }, "likely ones"),
      values.map((z) => h("option", { value: String(z), disabled: !possible.has(z) && String(z) !== chosen }, `${z}${possible.has(z) ? "" : " (does not fit)"}`)));
    $("z").value = chosen;
    if (found.group) this.groups.input.title = `${found.group.symbol}, number ${found.group.number}`;
  }

  /** Say what is wrong beside a field; "" for nothing. */
  error(name, message) {
    const known = FIELDS.includes(name) ? name : "kind";
    const place = $(`${known}-error`);
    if (place) place.textContent = message;
    const field = $(known);
    if (!field) return;
    if (message && $(`${known}-field`)) $(`${known}-field`).hidden = false;
    if (message) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    const inside = message && field.closest("details");
    if (inside) inside.open = true;
  }

  /** The request of the fields; null, with an error shown, if a field is wrong. */
  request() {
    for (const name of FIELDS) this.error(name, "");
    const wrong = (name, message) => { this.error(name, message); $(name).focus(); return null; };
    const formula = $("formula").value.trim();
    if (!formula) return wrong("formula", "Write a formula, such as TiO2.");
    const n = Number($("n").value);
    const most = this.about.limits.samples;
    const search = this.about.search && $("search").checked;
    if (!search && (!Number.isInteger(n) || n < 1 || n > most)) return wrong("n", `Write a whole number from 1 to ${most}.`);
    const simulations = Number($("simulations").value);
    const budget = this.about.limits.simulations;
    if (search && (!Number.isInteger(simulations) || simulations < 1 || simulations > budget)) return wrong("simulations", `Write a whole number from 1 to ${budget}.`);
    const seedText = $("seed").value.trim();
    const seed = seedText === "" ? Math.floor(Math.random() * 2 ** 32) : Number(seedText);
    if (!Number.isSafeInteger(seed) || seed < 0) return wrong("seed", "Write a whole number from 0.");
    const z = $("z").value;
    const group = $("space_group").value.trim();
    const energy = $("energy").value || null;
    const base = {
      formula, seed, z: z === "" ? null : z === "auto" ? "auto" : Number(z),
      space_group: group === "" ? null : /^\d+$/.test(group) ? Number(group) : group,
      model: $("model").value || null, energy,
    };
    if (this.pattern.chosen) {
      const from = $("crystals_from").value;
      return { formula, seed, z: base.z, space_group: base.space_group, model: base.model, crystals_from: from === "auto" ? "both" : from };
    }
    if (search) return { kind: "search", ...base, simulations };
    const conditions = this.properties().length ? $("conditions").value.split(/[\s,;]+/).filter(Boolean) : [];
    return { kind: "generate", ...base, n, conditions, crystals_from: $("crystals_from").value, temperature: Number($("temperature").value), relax: energy !== null && $("relax").checked };
  }

  /** A request as the query of an address, which gives the same crystals again. */
  static query(request) {
    const values = {
      ...request, z: request.z ?? "", space_group: request.space_group ?? "", energy: request.energy ?? "", relax: request.relax ? "1" : "",
      search: request.kind === "search" ? "1" : "", conditions: (request.conditions ?? []).join(" "), model: request.model === "default" ? "" : request.model ?? "",
    };
    const query = new URLSearchParams();
    for (const [name, usual] of Object.entries(ADDRESS)) {
      const value = String(values[name] ?? usual);
      if (value !== usual) query.set(name, value);
    }
    return query;
  }

  /** Fill the fields from an address; return whether it holds a request. */
  take(query) {
    for (const [name, usual] of Object.entries(ADDRESS)) {
      const value = query.get(name) ?? usual;
      const field = $(name);
      if (field.type === "checkbox") field.checked = value === "1";
      else if (field.tagName === "SELECT" && value === "" && field.options.length) field.selectedIndex = 0;
      else if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) {
        field.append(h("option", { value }, name === "z" ? value.replace("auto", "likely ones") : `${value} (not offered)`)); // the server says so
        field.value = value;
      } else field.value = value;
    }
    $("temperature-shown").textContent = Number($("temperature").value).toFixed(2);
    this.changed("energy");
    this.reading();
    return Boolean(query.get("formula"));
  }

  /** The title of a request above its crystals. */
  static title(request) {
    // A job of another program may have no formula.
    const parts = [request.formula ? h("span", {}, typeset(request.formula)) : `${request.elements ?? "Any formula"}`];
    if (request.z === "auto") parts.push(", Z auto");
    else if (request.z) parts.push(`, Z = ${request.z}`);
    if (request.space_group) parts.push(", ", request.space_group === "auto" ? "groups auto" : typeof request.space_group === "number" ? `no. ${request.space_group}` : group(request.space_group));
    if (request.conditions?.length) parts.push(", ", request.conditions.join(", "));
    return parts;
  }
}
