/* The periodic table: a click adds an element to the formula. */
import { h } from "./dom.js";

const NAMES = `Hydrogen Helium Lithium Beryllium Boron Carbon Nitrogen Oxygen Fluorine Neon Sodium Magnesium Aluminium
Silicon Phosphorus Sulfur Chlorine Argon Potassium Calcium Scandium Titanium Vanadium Chromium Manganese Iron Cobalt
Nickel Copper Zinc Gallium Germanium Arsenic Selenium Bromine Krypton Rubidium Strontium Yttrium Zirconium Niobium
Molybdenum Technetium Ruthenium Rhodium Palladium Silver Cadmium Indium Tin Antimony Tellurium Iodine Xenon Caesium
Barium Lanthanum Cerium Praseodymium Neodymium Promethium Samarium Europium Gadolinium Terbium Dysprosium Holmium Erbium
Thulium Ytterbium Lutetium Hafnium Tantalum Tungsten Rhenium Osmium Iridium Platinum Gold Mercury Thallium Lead Bismuth
Polonium Astatine Radon Francium Radium Actinium Thorium Protactinium Uranium Neptunium Plutonium Americium Curium
Berkelium Californium Einsteinium Fermium Mendelevium Nobelium Lawrencium Rutherfordium Dubnium Seaborgium Bohrium
Hassium Meitnerium Darmstadtium Roentgenium Copernicium Nihonium Flerovium Moscovium Livermorium Tennessine
Oganesson`.split(/\s+/);
const NOBLE = [0, 2, 10, 18, 36, 54, 86, 118];

/** Row and column of an element, those of the f block in rows 9 and 10. */
function place(number) {
  const period = NOBLE.findIndex((last) => number <= last);
  const within = number - NOBLE[period - 1];
  if (period === 1) return [1, within === 1 ? 1 : 18];
  if (period <= 3) return [period, within <= 2 ? within : within + 10];
  if (period <= 5) return [period, within];
  if (within >= 3 && within <= 16) return [period + 3, within + 1];
  return [period, within <= 2 ? within : within - 14];
}

/** The table, in an element; calls `choose(symbol)`. Arrow keys move in it. */
export function build(container, elements, choose) {
  const hint = h("p", { class: "hint" }, "Choose elements; grey ones are not in the language.");
  const buttons = new Map();
  for (const { symbol, number, known, colour } of elements) {
    const [row, column] = place(number);
    const label = `${NAMES[number - 1]}, ${number}${known ? "" : ", not in the language"}`;
    const button = h("button", {
      type: "button", tabIndex: symbol === "H" ? 0 : -1, title: label, "aria-label": `${symbol}, ${label}`,
      "aria-disabled": known ? false : "true", dot: colour ?? "transparent", data: { symbol, row, column },
      onclick: () => known ? choose(symbol) : (hint.textContent = `${NAMES[number - 1]} has no token: the language covers H to Pu without Po, At, Rn, Fr and Ra.`),
    }, symbol);
    button.style.gridRow = row;
    button.style.gridColumn = column;
    buttons.set(`${row} ${column}`, button);
  }
  const grid = h("div", { class: "grid", role: "group", "aria-label": "Periodic table" }, [...buttons.values()]);
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    let [row, column] = [Number(event.target.dataset.row), Number(event.target.dataset.column)];
    for (let tries = 0; tries < 20; tries += 1) {
      row += step[0];
      column += step[1];
      const next = buttons.get(`${row} ${column}`);
      if (next) {
        event.target.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
    }
  });
  container.replaceChildren(grid, hint);
  return {
    mark(symbols) {
      for (const button of buttons.values()) {
        const there = symbols.includes(button.dataset.symbol);
        if (there) button.setAttribute("aria-pressed", "true");
        else button.removeAttribute("aria-pressed");
      }
    },
  };
}

/** A formula with one more atom of an element: TiO + O is TiO2, TiO2 + O is TiO3. */
export function withElement(formula, symbol) {
  const found = /^(.*?)([A-Z][a-z]?)(\d*)$/.exec(formula.trim());
  if (found && found[2] === symbol) return `${found[1]}${symbol}${Number(found[3] || 1) + 1}`;
  return formula.trim() + symbol;
}
