/* One crystal in full: 3D, facts and checks, symmetry, powder pattern, the text, files; and two side by side. */
import * as api from "./api.js";
import { shown, shownCell } from "./cards.js";
import * as charts from "./charts.js";
import { $, fill, h } from "./dom.js";
import * as powder from "./powder.js";
import { large, legend } from "./scene.js";
import { cell, formula, group, number, plural, sentence } from "./typeset.js";

const CHECKS = { sensible: "sensible cell", formula: "formulas agree", multiplicity: "multiplicities add up", space_group: "printed group is found" };
const KINDS = ["requested", "chosen", "forced", "sampled"];
const FORMS = [["cif", "CIF", "with all symmetry operations"], ["poscar", "POSCAR", "for VASP"], ["extxyz", "extended XYZ", "for ASE, with the energy"]];

/** What a crystal is, as its picture `now` shows it. */
function title(crystal, id, now) {
  return h("h2", { id }, crystal.formula ? formula(crystal.formula) : `Crystal ${crystal.number}`,
    now.space_group && group(now.space_group),
    h("small", {}, `${now.space_group_number ? `no. ${now.space_group_number}, ` : ""}sample ${crystal.number}`));
}

const closer = (dialog) => h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => dialog.close() }, "✕");

/** Show a crystal of a job. */
export function open(job, crystal) {
  const dialog = $("detail");
  const now = shown(crystal);
  const scene = now.view ? large(now.view, `${crystal.formula}, ${now.space_group ?? "group unknown"}`) : null;
  const picture = h("div", { class: "large" },
    scene ? scene.stage : h("p", { class: "missing" }, crystal.broken ?? "Too large to draw."),
    h("div", { class: "under" },
      h("div", { class: "legend" }, now.composition ? legend(now.composition.map(([symbol]) => symbol)) : null),
      scene && crystal.relaxed && h("button", { type: "button", class: "quiet", onclick: (event) => {
        const before = event.target.textContent === "As written";
        const other = before ? crystal : crystal.relaxed;
        scene.draw(other.view);
        $("detail-title").replaceWith(title(crystal, "detail-title", other));
        event.target.textContent = before ? "Relaxed" : "As written";
      } }, "As written"),
      scene && h("button", { type: "button", class: "quiet", onclick: () => scene.reset() }, "Reset view")));
  const tabs = [...(crystal.fit ? [["Fit", fitted]] : []), ["Facts", facts], ["Symmetry", symmetry], ["X-ray", xray], ["Text", text], ["Download", files]]
    .filter(([name]) => crystal.structure || name === "Fit" || name === "Facts" || name === "Text");
  const side = h("div", { class: "side" });
  fill(dialog, h("div", { class: "detail-head" }, title(crystal, "detail-title", now), closer(dialog)),
    h("div", { class: "detail-body" }, picture, side));
  panels(side, tabs, (make) => make(job, crystal));
  dialog.onclose = () => { scene?.end(); fill(dialog); };
  dialog.showModal();
  scene?.start();
}

/** Tabs and the panel below them, each made when it is first looked at. */
function panels(side, tabs, make) {
  const panel = h("div", { class: "panel", role: "tabpanel", id: "panel", tabIndex: 0 });
  const buttons = tabs.map(([name, content], i) => h("button", {
    type: "button", role: "tab", id: `tab-${i}`, "aria-controls": "panel", "aria-selected": "false", tabIndex: -1,
    onclick: () => show(i), data: { tab: name },
  }, name));
  const show = (i) => {
    for (const [k, button] of buttons.entries()) {
      button.setAttribute("aria-selected", String(k === i));
      button.tabIndex = k === i ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `tab-${i}`);
    fill(panel, make(tabs[i][1]));
    panel.scrollTop = 0;
  };
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": "About this crystal" }, buttons);
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    show(next);
    buttons[next].focus();
  });
  fill(side, bar, panel);
  show(0);
}

const list = (rows) => h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined)
  .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function facts(job, crystal) {
  const now = shown(crystal);
  const found = [];
  if (now.cell) {
    const angles = now.cell.slice(3).map((x) => number(x, 2)).join(", ");
    found.push(h("h3", {}, crystal.relaxed ? "Cell, relaxed" : "Cell"), list([
      ["a, b, c", `${now.cell.slice(0, 3).map((x) => number(x, 3)).join(", ")} Å`],
      ["α, β, γ", `${angles}°`],
      ["volume", `${number(now.volume, 2)} Å³, ${number(now.volume_per_atom, 3)} Å³/atom`],
      ["density", `${number(now.density, 3)} g/cm³`],
      ["space group", now.space_group ? [group(now.space_group), ` (no. ${now.space_group_number})`] : null],
      ["content", [formula(now.formula), ` = ${now.z} × `, formula(now.reduced_formula)]],
    ]));
  }
  if (crystal.checks) {
    const reasonable = crystal.bond_score === 1;
    const bonds = crystal.bond_score === null || crystal.bond_score === undefined ? "unknown" : reasonable ? "" : "bad";
    found.push(h("h3", {}, "Checks"), h("ul", { class: "checks" },
      Object.entries(CHECKS).map(([name, label]) => h("li", { class: crystal.checks[name] ? "" : "bad" }, label)),
      h("li", { class: bonds }, bonds === "bad" ? `bonds: ${number(100 * crystal.bond_score, 0)} % of a reasonable length` : "bonds of reasonable length")));
    if (crystal.reasons?.length) found.push(h("p", { class: "error" }, crystal.reasons.join("; ")));
  }
  const rest = [
    ["energy", crystal.energy === undefined ? null : crystal.energy === null ? `none: ${crystal.energy_reason}` : `${number(crystal.energy, 4)} eV/atom`],
    ["before relaxation", crystal.relaxed ? `${number(crystal.relaxed.energy_before, 4)} eV/atom, ${plural(crystal.relaxed.steps, "step")}` : null],
    ["rank", crystal.rank ? `#${crystal.rank}` : null],
    ["samples that agree", crystal.cluster_size ?? null],
    ["made of", crystal.relative ? [formula(crystal.relative.formula), `, ${crystal.relative.id} of ${crystal.relative.source}, distance ${number(crystal.relative.distance, 2)}`] : null],
    ["probability", crystal.relative && crystal.probability !== undefined ? `${number(100 * crystal.probability, 1)} %` : null],
    ["log-likelihood", crystal.relative || crystal.log_likelihood === undefined ? null : `${number(crystal.log_likelihood, 2)} nats, ${plural(crystal.n_tokens, "token")}`],
    ["request", crystal.request ? sentence(crystal.request) : null],
    ["model, seed, sample", crystal.model ? `${crystal.model}, ${crystal.seed}, ${crystal.sample_index}` : null],
  ];
  found.push(h("h3", {}, "Ranking and origin"), list(rest));
  return found;
}

function symmetry(job, crystal) {
  const fixed = (orbit, axis) => {
    const value = number(orbit.position[axis], 4);
    return h("td", { class: `num${orbit.free.includes("xyz"[axis]) ? " free" : ""}` }, value);
  };
  return [
    crystal.relaxed && h("h3", {}, "As written"),
    list([
      ["space group", [group(crystal.space_group), ` (no. ${crystal.space_group_number})`]],
      ["system", crystal.crystal_system],
      ["operations", `${crystal.n_operations} in the conventional cell`],
      ["free parameters", cell(crystal).map((one) => one.split(" ")[0]).join(", ")],
    ]),
    h("h3", {}, "Orbits"),
    h("div", { class: "orbits-wrap" }, h("table", { class: "orbits" },
      h("thead", {}, h("tr", {}, ["Element", "Wyckoff", "x", "y", "z"].map((name, i) => h("th", { scope: "col", class: i > 1 ? "num" : "" }, name)))),
      h("tbody", {}, crystal.orbits.map((orbit) => h("tr", {},
        h("td", {}, legend([orbit.element])), h("td", {}, orbit.wyckoff), [0, 1, 2].map((axis) => fixed(orbit, axis))))))),
    h("p", { class: "hint" }, `Coloured coordinates are free: ${crystal.relative ? "those of the known crystal" : "the network chose them"}. The others follow from the position.`),
  ];
}

function fitted(job, crystal) {
  const place = h("figure", { class: "fit" });
  requestAnimationFrame(() => fill(place, powder.figure(crystal, place.clientWidth)));
  return [place, list(powder.rows(crystal.fit))];
}

function xray(job, crystal) {
  const place = h("div", { "aria-busy": "true" }, h("p", { class: "note" }, "Computing the pattern…"));
  api.pattern(job, crystal.number, Boolean(crystal.relaxed)).then(
    (found) => { place.removeAttribute("aria-busy"); fill(place, h("figure", { id: "pattern" }, charts.pattern(found, place.clientWidth)), h("h3", {}, "Strongest peaks"), charts.peaks(found)); },
    (error) => fill(place, h("p", { class: "error", role: "alert" }, error.message)));
  return [place];
}

function text(job, crystal) {
  const found = [];
  if (crystal.tokens) {
    const counts = KINDS.map((_, kind) => crystal.tokens.filter(([, other]) => other === kind).length);
    found.push(h("h3", {}, "What the network wrote"),
      h("p", { class: "key written" }, KINDS.map((kind, i) => (counts[i] ? h("span", { class: kind }, `${kind} ${counts[i]}`) : null)), counts[3] ? h("span", { class: "sampled odd" }, "sampled, below 5 %") : null),
      h("p", { class: "written", id: "written" }, crystal.tokens.flatMap(([word, kind, chance]) => [" ", h("span", {
        class: `${KINDS[kind]}${kind === 3 && chance < 0.05 ? " odd" : ""}`,
        title: chance === null ? KINDS[kind] : `${KINDS[kind]}, probability ${number(100 * chance, 1)} %`,
      }, word.replaceAll("\n", "⏎"))])));
  }
  if (crystal.text) found.push(h("h3", {}, crystal.structure ? "As a standard text" : "As it stands"), h("pre", { class: "text", tabIndex: 0 }, crystal.text));
  if (crystal.cif) found.push(h("h3", {}, crystal.relaxed ? "As a CIF, as written" : "As a CIF"), h("pre", { class: "text", id: "cif", tabIndex: 0 }, crystal.cif));
  return found;
}

function files(job, crystal) {
  const message = h("p", { class: "error", role: "alert" });
  const button = (form, name, what, relaxed) => h("button", {
    type: "button", class: "quiet", data: { form, relaxed: String(relaxed) },
    onclick: () => api.download(`api/v1/jobs/${job}/crystals/${crystal.number}/file?form=${form}&relaxed=${relaxed}`).then(() => { message.textContent = ""; }, (error) => { message.textContent = error.message; }),
  }, name, h("small", {}, what));
  return [
    crystal.relaxed && h("h3", {}, "Relaxed"),
    crystal.relaxed && h("div", { class: "home" }, FORMS.map(([form, name, what]) => button(form, name, what, true))),
    h("h3", {}, crystal.relaxed ? "As written" : "This crystal"),
    h("div", { class: "home" }, FORMS.map(([form, name, what]) => button(form, name, what, false))),
    message,
  ];
}

const ROWS = [
  ["space group", (one) => (shown(one).space_group ? group(shown(one).space_group) : "–"), null],
  ["cell", (one) => shownCell(one).join("  "), null],
  ["volume, Å³/atom", (one) => number(shown(one).volume_per_atom, 3), null],
  ["density, g/cm³", (one) => number(shown(one).density, 3), null],
  ["energy, eV/atom", (one) => number(one.energy, 4), (one) => one.energy],
  ["log-likelihood", (one) => number(one.log_likelihood, 2), (one) => -one.log_likelihood],
  ["samples that agree", (one) => String(one.cluster_size ?? "–"), (one) => -one.cluster_size],
  ["validity", (one) => (one.plausible ? "plausible" : one.reasons?.join("; ") || "–"), null],
  ["orbits, as written", (one) => one.orbits.map((orbit) => `${orbit.element} ${orbit.wyckoff}`).join(", "), null],
];

/** Show two crystals beside each other; turning one turns the other. */
export function compare([left, right]) {
  const dialog = $("pair");
  const pair = [left, right];
  const scenes = pair.map((one) => large(shown(one).view, `${one.formula}, ${shown(one).space_group ?? "group unknown"}`));
  fill(dialog, h("div", { class: "detail-head" }, h("h2", { id: "pair-title" }, "Side by side"), closer(dialog)),
    h("div", { class: "pair-body orbits-wrap" },
      h("div", { class: "pair-grid" }, scenes.map(({ stage }) => h("div", { class: "large" }, stage))),
      h("table", { class: "versus" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "crystal"), pair.map((one) => h("td", {}, formula(one.formula), ` · sample ${one.number}`)))),
        h("tbody", {}, ROWS.map(([name, value, key]) => {
          const keys = key ? pair.map(key) : null;
          const better = keys && keys.every(Number.isFinite) && keys[0] !== keys[1] ? keys.indexOf(Math.min(...keys)) : -1;
          return h("tr", {}, h("th", { scope: "row" }, name), pair.map((one, i) => h("td", { class: i === better ? "best" : "" }, value(one))));
        })))));
  dialog.onclose = () => { scenes.forEach((scene) => scene.end()); fill(dialog); };
  dialog.showModal();
  const [first, second] = scenes.map((scene) => scene.start());
  if (first && second) {
    first.linkViewer(second);
    second.linkViewer(first);
  }
}
