/* A measured powder pattern: its field in the form, and what its fit shows. */
import * as charts from "./charts.js";
import { $, fill, h } from "./dom.js";
import { formula, group, number } from "./typeset.js";

const SHOWN = 12; // unexplained peaks, at most
const read = (file) => file.text();

export class PatternField {
  /** @param {() => void} changed called when a pattern comes or goes @param {(message: string) => void} complain */
  constructor(largest, changed, complain) {
    Object.assign(this, { largest, changed, complain, file: null });
    const input = $("pattern");
    input.addEventListener("change", () => this.take(input.files[0] ?? null));
    $("no-pattern").addEventListener("click", () => this.clear());
    const drop = $("pattern-field");
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      $("pattern").files = event.dataTransfer.files; // so that its name stands in the field
      this.take($("pattern").files[0] ?? null);
    });
  }

  get chosen() { return this.file !== null; }

  clear() {
    $("pattern").value = "";
    this.take(null);
  }

  async take(file) {
    this.complain("");
    this.file = null;
    if (file && file.size > this.largest) this.complain(`${file.name}: ${Math.round(file.size / 1000)} kB are more than this server takes: save fewer points`);
    else if (file) this.file = { name: file.name, text: await read(file) };
    $("no-pattern").hidden = !this.chosen;
    $("pattern-more").hidden = !this.chosen;
    this.changed();
  }

  /** The fields of a request. */
  async values() {
    const phases = await Promise.all([...$("phases").files].map(read));
    return {
      kind: "solve", pattern_text: this.file.text, pattern_name: this.file.name,
      wavelength: $("wavelength").value.trim() || null, radiation: $("radiation").value, phase_cifs: phases,
    };
  }
}

/** The measured peaks that a crystal leaves unexplained, as a sentence; null if there is none. */
function unexplained(fit) {
  if (!fit.unexplained.length) return null;
  const named = fit.unexplained.slice(0, SHOWN).map((peak) => `${number(peak.two_theta)}° (${number(peak.d, 3)} Å, ${number(100 * peak.height, 0)} %)`);
  const more = fit.unexplained.length - named.length;
  return h("p", { class: "note unexplained" }, `Unexplained peaks, perhaps of an impurity: ${named.join(", ")}${more > 0 ? ` and ${more} more` : ""}`);
}

/** The chart of a fit with its caption. */
export function figure(crystal, place) {
  return [
    h("figcaption", {}, formula(crystal.formula), " ", crystal.space_group ? group(crystal.space_group) : null, ": measured (points), calculated (line), difference (below)"),
    charts.fit(crystal.fit, place), unexplained(crystal.fit),
  ];
}

/** Facts of a fit, as rows of names and values. */
export function rows(fit) {
  return [
    ["Rwp", `${number(100 * fit.rwp, 1)} %, ${number(100 * fit.rwp_expected, 1)} % expected from noise`],
    ["similarity S", number(fit.similarity, 3)],
    ["unexplained", `${number(100 * fit.share_unexplained, 0)} % of the heights of peaks`],
    ["zero shift", `${number(fit.zero_shift, 3)}°`],
    ["width of peaks at 40°", `${number(fit.width_at_40, 3)}°`],
    ["displacement B", `${number(fit.displacement, 2)} Å²`],
    ...fit.phases.map((phase) => [phase.name, `${number(100 * phase.share, 1)} % of the mass`]),
  ];
}
