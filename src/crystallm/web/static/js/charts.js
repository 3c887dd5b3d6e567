/* Charts as SVG: the powder pattern, and how the lowest energy falls. */
import { h, svg } from "./dom.js";
import { number } from "./typeset.js";

const [NARROW, PATTERN, CURVE] = [260, 520, 832];

/** The width to draw at, in a place so wide (pixels): letters are then as large as their style says, on a phone too. */
const fitting = (place, most) => (place > 0 ? Math.min(most, Math.max(NARROW, Math.round(place))) : most);

function steps(low, high, about) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= raw) ?? raw;
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + 1e-9; x += step) found.push(Number(x.toFixed(10)));
  return found;
}

/** A powder pattern: sticks, and a profile of the width that a laboratory sees (0.25 degrees). */
export function pattern(found, place) {
  const width = fitting(place, PATTERN);
  const [height, left, bottom, top] = [270, 40, 34, 10];
  const [low, high] = found.two_theta;
  const x = (angle) => left + ((angle - low) / (high - low)) * (width - left - 6);
  const y = (intensity) => height - bottom - (intensity / 100) * (height - bottom - top);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `Powder pattern with ${found.peaks.length} peaks; they are listed below` });
  for (const angle of steps(low, high, width / 65)) {
    made.append(svg("line", { class: "grid", x1: x(angle), x2: x(angle), y1: top, y2: height - bottom }));
    made.append(svg("text", { x: x(angle), y: height - bottom + 16, "text-anchor": "middle" }, String(angle)));
  }
  made.append(svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, `2θ, degrees (${found.radiation}, ${found.wavelength} Å)`));
  made.append(svg("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - bottom) / 2})` }, "intensity"));
  const points = [];
  const sigma = 0.25;
  for (let angle = low; angle <= high; angle += 0.1) {
    let sum = 0;
    for (const peak of found.peaks) {
      const off = (peak.two_theta - angle) / sigma;
      if (Math.abs(off) < 5) sum += peak.intensity * Math.exp(-off * off * 2.77);
    }
    points.push(`${x(angle).toFixed(1)},${y(Math.min(sum, 108)).toFixed(1)}`);
  }
  made.append(svg("polygon", { class: "profile", points: `${x(low)},${y(0)} ${points.join(" ")} ${x(high)},${y(0)}` }));
  made.append(svg("line", { class: "axis", x1: left, x2: width - 6, y1: y(0), y2: y(0) }));
  for (const peak of found.peaks) {
    const name = `${peak.hkl.map((hkl) => hkl.join(" ")).join(", ")} at ${number(peak.two_theta)}°, d ${number(peak.d, 3)} Å, ${number(peak.intensity, 1)} %`;
    const line = svg("line", { class: "peak", x1: x(peak.two_theta), x2: x(peak.two_theta), y1: y(0), y2: y(Math.max(peak.intensity, 1)) }, svg("title", {}, name));
    made.append(line);
  }
  return made;
}

/** A fit: measured points, calculated line, their difference below, and marks at unexplained peaks. */
export function fit(found, place) {
  const width = fitting(place, CURVE);
  const [height, left, bottom, top, low] = [320, 40, 34, 14, 70];
  const [first, step] = found.two_theta;
  const last = first + step * (found.measured.length - 1);
  const most = Math.max(...found.measured, ...found.calculated);
  const least = Math.min(0, ...found.measured);
  const x = (angle) => left + ((angle - first) / (last - first)) * (width - left - 6);
  const scale = (height - bottom - top - low) / (most - least || 1);
  const y = (value) => height - bottom - low - (value - least) * scale;
  const path = (values, at) => values.map((value, i) => `${i ? "L" : "M"}${x(first + step * i).toFixed(1)},${at(value).toFixed(1)}`).join("");
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart fitted", role: "img", "aria-label": `Measured and calculated pattern, Rwp ${number(100 * found.rwp, 1)} %, ${found.unexplained.length} unexplained peaks` });
  for (const angle of steps(first, last, width / 65)) {
    made.append(svg("line", { class: "grid", x1: x(angle), x2: x(angle), y1: top, y2: height - bottom }));
    made.append(svg("text", { x: x(angle), y: height - bottom + 16, "text-anchor": "middle" }, String(angle)));
  }
  made.append(svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, `2θ, degrees (${found.radiation})`));
  made.append(svg("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - bottom) / 2})` }, "intensity"));
  const middle = height - bottom - low / 2;
  made.append(svg("line", { class: "axis", x1: left, x2: width - 6, y1: middle, y2: middle }));
  made.append(svg("path", { class: "difference", d: path(found.measured.map((value, i) => value - found.calculated[i]), (value) => Math.max(top, Math.min(height - bottom, middle - value * scale))) }));
  made.append(svg("path", { class: "measured", d: path(found.measured, y) }));
  made.append(svg("path", { class: "step", d: path(found.calculated, y) }));
  for (const peak of found.unexplained) {
    made.append(svg("path", { class: "unexplained", d: `M${x(peak.two_theta).toFixed(1)},${top}l-4,-8h8z` }, svg("title", {}, `unexplained: ${number(peak.two_theta)}°, d ${number(peak.d, 3)} Å`)));
  }
  return made;
}

/** The strongest peaks as a table. */
export function peaks(found, most = 12) {
  const strongest = [...found.peaks].sort((one, other) => other.intensity - one.intensity).slice(0, most);
  strongest.sort((one, other) => one.two_theta - other.two_theta);
  return h("div", { class: "orbits-wrap" }, h("table", { class: "orbits" },
    h("thead", {}, h("tr", {}, [strongest[0]?.hkl[0].length === 4 ? "h k i l" : "h k l", "2θ, °", "d, Å", "I, %"].map((name, i) => h("th", { class: i ? "num" : "", scope: "col" }, name)))),
    h("tbody", {}, strongest.map((peak) => h("tr", {},
      h("td", {}, peak.hkl.map((hkl) => hkl.join(" ").replaceAll("-", "−")).join(", ")),
      h("td", { class: "num" }, number(peak.two_theta)),
      h("td", { class: "num" }, number(peak.d, 3)),
      h("td", { class: "num" }, number(peak.intensity, 1)))))));
}

/** The lowest energy (eV/atom) after so many crystals; `tried` of them so far, where that is known. */
export function curve(points, total, tried, place) {
  const width = fitting(place, CURVE);
  const [height, left, bottom, top] = [130, 62, 26, 8];
  const energies = points.map((point) => point.energy);
  let [low, high] = [Math.min(...energies), Math.max(...energies)];
  const pad = Math.max((high - low) * 0.15, 0.01);
  [low, high] = [low - pad, high + pad];
  const last = Math.max(total ?? 1, ...points.map((point) => point.step));
  const x = (step) => left + (step / last) * (width - left - 10);
  const y = (energy) => top + ((high - energy) / (high - low)) * (height - bottom - top);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `Lowest energy so far ${number(energies.at(-1), 3)} eV per atom` });
  for (const energy of steps(low, high, 3)) {
    made.append(svg("line", { class: "grid", x1: left, x2: width - 10, y1: y(energy), y2: y(energy) }));
    made.append(svg("text", { x: left - 8, y: y(energy) + 4, "text-anchor": "end" }, number(energy, 2)));
  }
  let path = `M${x(points[0].step)},${y(points[0].energy)}`;
  for (const point of points.slice(1)) path += `H${x(point.step).toFixed(1)}V${y(point.energy).toFixed(1)}`;
  const now = Math.max(tried ?? 0, points.at(-1).step);
  made.append(svg("path", { class: "step", d: `${path}H${x(tried === undefined ? last : now).toFixed(1)}` }));
  for (const point of points) made.append(svg("circle", { class: "mark", r: 4, cx: x(point.step), cy: y(point.energy) }, svg("title", {}, `${number(point.energy, 3)} eV/atom after ${point.step}`)));
  made.append(svg("text", { x: width - 10, y: height - 6, "text-anchor": "end" }, tried === undefined ? `crystals: ${last}` : `crystals tried: ${now} of ${last}`));
  return made;
}
