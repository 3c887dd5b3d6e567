/* Formulas, symbols of space groups and numbers as they are printed. */
import { h } from "./dom.js";

const MINUS = "−";

/** Ti2O4 with its numbers set low. */
export function formula(text) {
  return text.split(/(\d+)/).filter(Boolean).map((part) => (/^\d+$/.test(part) ? h("sub", {}, part) : part));
}

/** A sentence with the formulas in it: "z = 2: cell Ti2O4 = 2 x TiO2". */
export function sentence(text) {
  return text.split(" ").flatMap((word, i) => {
    const shown = word === "x" ? ["×"] : /^(?:[A-Z][a-z]?\d*)+[,;:]?$/.test(word) && /\d/.test(word) ? formula(word) : [word];
    return i ? [" ", ...shown] : shown;
  });
}

/** P4_2/mnm, Fm-3m: letters in italics, screw axes low, inversion axes with a bar. */
export function group(symbol) {
  const parts = [];
  for (const found of symbol.matchAll(/-(\d)|(\d)_(\d)|([A-Za-z]+)|([\d/])|(.)/g)) {
    const [, bar, axis, screw, letters, digits, other] = found;
    if (bar) parts.push(h("span", { class: "bar" }, bar));
    else if (axis) parts.push(h("b", {}, axis), h("sub", {}, screw));
    else if (letters) parts.push(letters);
    else parts.push(h("b", {}, digits ?? other));
  }
  return h("span", { class: "group", "aria-label": symbol, role: "img" }, parts);
}

/** A number with so many decimals, a true minus, and a dash for none. */
export function number(value, decimals = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toFixed(decimals).replace("-", MINUS);
}

/** The cell parameters that a space group leaves free, or all. */
export function cell(crystal) {
  const names = ["a", "b", "c", "alpha", "beta", "gamma"];
  const signs = ["a", "b", "c", "α", "β", "γ"];
  const free = crystal.free_cell ?? names;
  return names
    .map((name, i) => (free.includes(name) ? `${signs[i]} ${number(crystal.cell[i], i < 3 ? 3 : 1)}${i < 3 ? "" : "°"}` : ""))
    .filter(Boolean);
}

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
