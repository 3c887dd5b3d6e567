/* The cards of a run: one a crystal, sorted and filtered. */
import { $, fill, h } from "./dom.js";
import { Stage, picture } from "./scene.js";
import { cell, formula, group, number, plural } from "./typeset.js";

const LAST = Number.POSITIVE_INFINITY;
/** Orders by name: what they are called, and the number by which they rise. */
const ORDERS = {
  rank: ["best first", (one) => one.rank ?? LAST],
  written: ["as written", (one) => one.number],
  energy: ["energy", (one) => one.energy ?? LAST],
  likelihood: ["likelihood", (one) => -(one.log_likelihood ?? -LAST)],
  agreement: ["samples that agree", (one) => -(one.cluster_size ?? 0)],
  volume: ["volume per atom", (one) => shown(one).volume_per_atom ?? LAST],
  group: ["space group, high first", (one) => -(shown(one).space_group_number ?? 0)],
};

/** What a crystal has become, where it was relaxed; else what was written. */
export const shown = (one) => one.relaxed ?? one;

/** The cell of what is shown; which parameters are free is known as long as the space group is the written one. */
export const shownCell = (one) => {
  const now = shown(one);
  return cell({ ...now, free_cell: now.space_group_number === one.space_group_number ? one.free_cell : undefined });
};

export class Cards {
  /** @param {(crystal: object) => void} open @param {(pair: object[]) => void} compare */
  constructor(open, compare) {
    this.open = open;
    this.stage = new Stage();
    this.picked = [];
    this.clear(0);
    fill($("sort"), Object.entries(ORDERS).map(([value, [name]]) => h("option", { value }, name)));
    for (const id of ["sort", "filter-group", "only-valid", "only-distinct"]) $(id).addEventListener("input", () => this.arrange());
    $("compare").addEventListener("click", () => compare(this.picked.map((n) => this.crystals.get(n))));
  }

  clear(total) {
    this.total = total;
    this.crystals = new Map();
    this.cards = new Map();
    this.picked = [];
    this.over = false;
    cancelAnimationFrame(this.frame);
    this.frame = null;
    fill($("cards"));
    fill($("filter-group"), h("option", { value: "" }, "all"));
    this.pick();
    this.ghosts();
  }

  /** Add a crystal that has just been checked. */
  add(crystal) {
    this.crystals.set(crystal.number, crystal);
    const card = this.card(crystal);
    card.classList.add("arriving");
    this.cards.set(crystal.number, card);
    this.soon();
  }

  /** Put the cards in order before the next frame: once, however many have come until then. */
  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.groupsOf();
      this.arrange();
    });
  }

  /** Further facts on crystals. */
  update(facts) {
    for (const fact of facts) {
      const crystal = this.crystals.get(fact.number);
      if (!crystal) continue;
      const redraw = "relaxed" in fact;
      Object.assign(crystal, fact);
      const old = this.cards.get(fact.number);
      fill(old.querySelector(".body"), this.body(crystal));
      this.mark(old, crystal);
      if (redraw) this.paint(old, crystal);
    }
    this.soon(); // a relaxed crystal may have another group
  }

  end() {
    this.over = true;
    this.groupsOf();
    this.arrange();
  }

  card(crystal) {
    const scene = h("div", { class: "scene" });
    const card = h("li", { class: "card", data: { number: crystal.number } },
      scene,
      h("label", { class: "pick", title: "Pick for comparison" },
        h("input", { type: "checkbox", disabled: !crystal.view, onchange: (event) => this.toggle(crystal.number, event.target.checked) })),
      h("div", { class: "body" }, this.body(crystal)),
      h("button", { type: "button", class: "open", onclick: () => this.open(crystal) }));
    this.paint(card, crystal);
    this.mark(card, crystal);
    const live = () => shown(crystal).view && this.stage.show(scene, shown(crystal).view);
    card.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && live());
    card.addEventListener("pointerleave", () => this.stage.leave(scene));
    card.addEventListener("focusin", live);
    card.addEventListener("focusout", () => this.stage.leave(scene));
    return card;
  }

  paint(card, crystal) {
    const scene = card.querySelector(".scene");
    const { view } = shown(crystal);
    const address = view ? picture(view) : "";
    const rank = h("span", { class: "rank" });
    if (address) fill(scene, h("img", { src: address, alt: "" }), rank);
    else fill(scene, h("p", { class: "missing" }, crystal.broken ? "No crystal" : view === null ? "Too large to draw" : "No WebGL, no picture"), rank);
    this.mark(card, crystal);
  }

  mark(card, crystal) {
    const symbol = shown(crystal).space_group;
    const name = crystal.formula ? `${crystal.formula}${symbol ? `, ${symbol}` : ""}` : `Crystal ${crystal.number}, broken`;
    card.querySelector(".open").setAttribute("aria-label", `Open ${name}`);
    card.querySelector(".pick input").setAttribute("aria-label", `Pick ${name} for comparison`);
    const rank = card.querySelector(".rank");
    if (rank) rank.textContent = crystal.rank ? `#${crystal.rank}` : "";
  }

  body(crystal) {
    const now = shown(crystal);
    const sized = crystal.cluster_size;
    const rows = now.cell ? [
      ["cell, Å", shownCell(crystal).map((one) => [h("span", {}, one), " "])],
      ["Å³/atom", number(now.volume_per_atom, 2)],
    ] : [];
    if (crystal.energy !== undefined) rows.push(["eV/atom", crystal.energy === null ? crystal.energy_reason ?? "–" : number(crystal.energy, 3)]);
    if (crystal.energy_call) rows.push(["found", `try ${crystal.simulation}, energy ${crystal.energy_call}`]);
    if (crystal.fit) rows.push(["Rwp", `${number(100 * crystal.fit.rwp, 1)} %`], ["similarity", number(crystal.fit.similarity, 3)], ["unexplained", `${number(100 * crystal.fit.share_unexplained, 0)} %`]);
    else if (crystal.relative) rows.push(["probability", `${number(100 * crystal.probability, 0)} %`]);
    else if (crystal.log_likelihood !== undefined) rows.push(["log-likelihood, nats", number(crystal.log_likelihood, 1)]);
    return [
      h("div", { class: "head" },
        now.space_group ? group(now.space_group) : h("strong", {}, crystal.relaxed ? "Group unknown" : "No crystal"),
        h("small", {}, now.space_group_number ? `no. ${now.space_group_number}` : "")),
      h("div", { class: "badges" },
        crystal.plausible === undefined ? null : h("span", { class: `badge ${crystal.plausible ? "good" : "bad"}` }, crystal.plausible ? "plausible" : "not plausible"),
        sized > 1 && h("span", { class: "badge many", title: "Samples that are the same crystal" }, `${sized} agree`),
        crystal.relaxed && h("span", { class: "badge many" }, crystal.relaxed.converged ? "relaxed" : "part relaxed")),
      crystal.relative ? h("p", { class: "relative", title: "Made of this known crystal by exchanging elements" }, "like ", formula(crystal.relative.formula), `, ${crystal.relative.id}`) : null,
      !crystal.plausible && crystal.reasons?.length ? h("p", { class: "reasons", title: crystal.reasons.join("; ") }, crystal.reasons.join("; ")) : null,
      h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    ];
  }

  toggle(number, on) {
    this.picked = this.picked.filter((other) => other !== number);
    if (on) this.picked.push(number);
    while (this.picked.length > 2) {
      const first = this.cards.get(this.picked.shift());
      first.querySelector(".pick input").checked = false;
    }
    this.pick();
  }

  pick() {
    for (const [number, card] of this.cards) card.classList.toggle("picked", this.picked.includes(number));
    $("compare").disabled = this.picked.length !== 2;
  }

  groupsOf() {
    const field = $("filter-group");
    const chosen = field.value;
    const counts = new Map();
    for (const { space_group: symbol } of [...this.crystals.values()].map(shown)) if (symbol) counts.set(symbol, (counts.get(symbol) ?? 0) + 1);
    fill(field, h("option", { value: "" }, "all"), [...counts].sort((one, other) => other[1] - one[1]).map(([symbol, n]) => h("option", { value: symbol }, `${symbol} (${n})`)));
    field.value = counts.has(chosen) ? chosen : "";
  }

  /** The crystals that pass the filters, in their order. */
  selected() {
    const [plausible, distinct, symbol] = [$("only-valid").checked, $("only-distinct").checked, $("filter-group").value];
    const [, key] = ORDERS[$("sort").value] ?? ORDERS.rank;
    const sorted = [...this.crystals.values()].sort((one, other) => key(one) - key(other) || one.number - other.number);
    const seen = new Set();
    return sorted.filter((one) => {
      if ((plausible && !one.plausible) || (symbol && shown(one).space_group !== symbol)) return false;
      if (!distinct || one.cluster === null || one.cluster === undefined) return true;
      if (seen.has(one.cluster)) return false;
      return seen.add(one.cluster);
    });
  }

  arrange() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const list = $("cards");
    const chosen = this.selected();
    const wanted = chosen.map((one) => this.cards.get(one.number));
    const focused = document.activeElement;
    const kept = new Set(wanted);
    for (const child of [...list.children]) if (!kept.has(child)) child.remove();
    wanted.forEach((card, i) => { // those that stand where they should are not touched
      if (list.children[i] !== card) list.insertBefore(card, list.children[i] ?? null);
    });
    if (focused && list.contains(focused)) focused.focus();
    this.ghosts();
    $("tools").hidden = !this.crystals.size;
    $("shown").textContent = chosen.length === this.crystals.size ? "" : `${chosen.length} of ${plural(this.crystals.size, "crystal")} shown`;
    $("none-left").hidden = !this.crystals.size || chosen.length > 0;
  }

  /** Places for the crystals that are still to come. */
  ghosts() {
    const list = $("cards");
    for (const ghost of list.querySelectorAll(".ghost")) ghost.remove();
    if (this.over) return;
    const missing = Math.min(Math.max(0, this.total - this.crystals.size), 12);
    for (let i = 0; i < missing; i += 1) list.append(h("li", { class: "ghost", "aria-hidden": "true" }));
  }
}
