/* The field of the space group: a list to search in, those that cannot hold the cell greyed, with the reason. */
import { h } from "./dom.js";
import { group as typeset } from "./typeset.js";

const plain = (text) => text.toLowerCase().replace(/[\s_()]/g, "");

export class GroupField {
  /** @param {HTMLInputElement} input @param {HTMLElement} list @param {(changed: string) => void} chosen */
  constructor(input, list, groups, chosen) {
    Object.assign(this, { input, list, groups, chosen });
    this.fits = null;
    this.misfits = {};
    this.meant = null;
    this.shown = [];
    this.active = -1;
    input.addEventListener("focus", () => this.open());
    input.addEventListener("click", () => this.open());
    input.addEventListener("input", () => { this.open(); chosen(input.value); });
    input.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    input.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("mousedown", (event) => event.preventDefault()); // to scroll it leaves the field as it is
  }

  /** Learn which groups can hold the cell, null for all; and which one the server reads in what is written. */
  learn(fits, misfits = {}, meant = null) {
    this.fits = fits === null ? null : new Set(fits);
    this.misfits = misfits;
    this.meant = meant && { written: this.input.value, number: meant.number };
    if (!this.list.hidden) this.open();
  }

  open() {
    const wanted = plain(this.input.value);
    const entries = [
      { value: "", text: "left to the network", extra: "one a crystal" },
      { value: "auto", text: "auto", extra: "spread over likely ones" },
      ...this.groups.map((one) => ({ value: one.symbol, group: one })),
    ];
    const exact = entries.some((entry) => plain(entry.value) === wanted && wanted);
    const found = entries.filter(({ value, text, group }) =>
      !wanted || exact || plain(value).includes(wanted) || plain(text ?? "").includes(wanted) ||
      (group && (String(group.number).startsWith(wanted) || group.system.startsWith(wanted))));
    if (!found.length && this.meant?.written === this.input.value) {
      found.push(...entries.filter(({ group }) => group?.number === this.meant.number)); // Pbnm is another name of Pnma
    }
    found.sort((one, other) => this.weight(one, wanted) - this.weight(other, wanted));
    this.shown = found;
    this.active = -1;
    this.list.replaceChildren(...found.map((entry, i) => this.item(entry, i)));
    if (!found.length) this.list.append(h("li", { class: "empty" }, "Not in this list: write a number or a symbol, such as Fm-3m; those of other settings are read too"));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
  }

  /** Those that begin so come first, those that cannot hold the cell last. */
  weight({ value, group }, wanted) {
    if (!group) return -1;
    const begins = wanted && (plain(value) === wanted || String(group.number) === wanted) ? -2 : 0;
    return begins + (this.fits && !this.fits.has(group.number) ? 1 : 0);
  }

  item({ value, text, extra, group }, i) {
    const misfit = group && this.fits && !this.fits.has(group.number);
    return h("li", {
      id: `group-${i}`, role: "option", "aria-selected": "false", "aria-disabled": misfit ? "true" : false,
      onmousedown: (event) => { event.preventDefault(); this.choose(i); },
    },
    h("span", { class: "number" }, group ? String(group.number) : ""),
    group ? typeset(group.symbol) : h("span", {}, text),
    h("span", { class: "system" }, group ? group.system : extra),
    misfit && h("span", { class: "why" }, this.misfits[group.number] ?? "cannot hold the cell"));
  }

  choose(i) {
    const entry = this.shown[i];
    if (!entry || (entry.group && this.fits && !this.fits.has(entry.group.number))) return;
    this.input.value = entry.value;
    this.close();
    this.chosen(entry.value);
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  key(event) {
    if (event.key === "Escape" && !this.list.hidden) {
      event.stopPropagation();
      this.close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (this.list.hidden) this.open();
      this.move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && !this.list.hidden && this.active >= 0) {
      event.preventDefault();
      this.choose(this.active);
    } else if (event.key === "Enter") this.close(); // the request is sent: the list would cover its button
  }

  move(step) {
    const items = this.list.children;
    if (!this.shown.length) return;
    items[this.active]?.classList.remove("active");
    items[this.active]?.setAttribute("aria-selected", "false");
    this.active = (this.active + step + this.shown.length) % this.shown.length;
    const now = items[this.active];
    now.classList.add("active");
    now.setAttribute("aria-selected", "true");
    now.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", now.id);
  }
}
