/* Crystals in 3D, by 3Dmol. Browsers give a page few WebGL contexts: pictures of all cards are made by one hidden
   viewer, and one live viewer moves to the card that is looked at. */
import { h } from "./dom.js";

const BALL = 0.36; // share of an atom's radius that is drawn, so that bonds are seen between the balls
const facts = new Map();

/** Learn colours and radii of the elements. */
export function know(elements) {
  for (const element of elements) facts.set(element.symbol, element);
}

export const colour = (symbol) => facts.get(symbol)?.colour ?? "#cccccc";

/** Swatches of elements with their names. */
export function legend(symbols) {
  return symbols.map((symbol) => h("span", { class: "chip" }, h("span", { class: "dot", dot: colour(symbol) }), symbol));
}

const minus = (u, v) => u.map((x, i) => x - v[i]);
const dot = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
const scaled = (u, s) => u.map((x) => x * s);
const unit = (u) => scaled(u, 1 / Math.hypot(...u));
const cross = ([a, b, c], [x, y, z]) => [b * z - c * y, c * x - a * z, a * y - b * x];

/** The frame of the page: c up, the cell a little turned and tilted. */
function frame(cell) {
  const up = unit(cell[2]);
  const across = unit(minus(cell[0], scaled(up, dot(cell[0], up))));
  const towards = cross(across, up);
  const [turn, tilt] = [-0.42, 0.24];
  const turned = [
    across.map((x, i) => x * Math.cos(turn) + towards[i] * Math.sin(turn)),
    up,
    across.map((x, i) => -x * Math.sin(turn) + towards[i] * Math.cos(turn)),
  ];
  return [
    turned[0],
    turned[1].map((x, i) => x * Math.cos(tilt) - turned[2][i] * Math.sin(tilt)),
    turned[1].map((x, i) => x * Math.sin(tilt) + turned[2][i] * Math.cos(tilt)),
  ];
}

/** Draw a cell in the place of what a viewer shows. */
export function draw(viewer, view, { labels = false } = {}) {
  viewer.removeAllModels();
  viewer.removeAllShapes();
  viewer.removeAllLabels();
  const middle = scaled(view.cell.reduce((sum, edge) => sum.map((x, i) => x + edge[i]), [0, 0, 0]), 0.5);
  const axes = frame(view.cell);
  const place = (point) => axes.map((axis) => dot(axis, minus(point, middle)));
  const bonds = view.atoms.map(() => []);
  for (const [first, second] of view.bonds) {
    bonds[first].push(second);
    bonds[second].push(first);
  }
  const model = viewer.addModel();
  model.addAtoms(
    view.atoms.map(([elem, ...point], i) => {
      const [x, y, z] = place(point);
      return { elem, x, y, z, serial: i, bonds: bonds[i], bondOrder: bonds[i].map(() => 1) };
    }),
  );
  for (const elem of new Set(view.atoms.map(([symbol]) => symbol))) {
    const color = colour(elem);
    const radius = BALL * (facts.get(elem)?.radius ?? 1.5);
    model.setStyle({ elem }, { sphere: { radius, color }, stick: { radius: 0.09, color } });
  }
  const corner = (i, j, k) => place([0, 1, 2].map((n) => i * view.cell[0][n] + j * view.cell[1][n] + k * view.cell[2][n]));
  const ends = (from, to, radius, color) => {
    const [start, end] = [from, to].map(([x, y, z]) => ({ x, y, z }));
    viewer.addCylinder({ start, end, radius, color, fromCap: 1, toCap: 1 });
  };
  const thick = Math.max(0.02, Math.hypot(...view.cell[0], ...view.cell[1], ...view.cell[2]) / 420);
  for (const i of [0, 1]) for (const j of [0, 1]) {
    ends(corner(0, i, j), corner(1, i, j), thick, "#7d8987");
    ends(corner(i, 0, j), corner(i, 1, j), thick, "#7d8987");
    ends(corner(i, j, 0), corner(i, j, 1), thick, "#7d8987");
  }
  if (labels) {
    // Beyond the atoms at the corners.
    const beyond = view.cell.map((edge) => 1 + 0.95 / Math.hypot(...edge));
    const names = [["a", corner(beyond[0], 0, 0)], ["b", corner(0, beyond[1], 0)], ["c", corner(0, 0, beyond[2])]];
    const ink = themeColour("--soft");
    for (const [name, [x, y, z]] of names) {
      viewer.addLabel(name, { position: { x, y, z }, fontColor: ink, fontSize: 19, bold: true, backgroundOpacity: 0, inFront: true, alignment: "center" });
    }
  }
  viewer.zoomTo(); // it also learns the depth of what there is to see
  viewer.setView([0, 0, 0, distance(viewer, view, place, labels ? 1.18 : 1.06), 0, 0, 0, 1]);
  viewer.render();
}

/** How near a cell may come so that all of it is seen, however it is turned about the upright axis. */
function distance(viewer, view, place, room) {
  const [camera, slope] = [150, Math.tan((20 / 2) * (Math.PI / 180))]; // 3Dmol's camera: its place and field of view
  const canvas = viewer.getCanvas();
  const aspect = canvas.width / canvas.height || 1;
  let nearest = 1;
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => [0, 1, 2].map((i) => view.cell.reduce((sum, edge, k) => sum + ((n >> k) & 1) * edge[i], 0)));
  for (const [symbol, ...point] of [...view.atoms, ...corners.map((corner) => ["", ...corner])]) {
    const [x, y, z] = place(point);
    const radius = symbol ? BALL * (facts.get(symbol)?.radius ?? 1.5) : 0.1;
    const around = Math.hypot(x, z) + radius;
    nearest = Math.max(nearest, (Math.abs(y) + radius) / slope + 0.5 * around, around / (slope * aspect) + 0.5 * around);
  }
  return camera - room * nearest;
}

/** Whether a processor draws in the place of a graphics card: smooth edges take it ten times as long. */
function drawnBySoftware() {
  const context = document.createElement("canvas").getContext("webgl");
  const names = context?.getExtension("WEBGL_debug_renderer_info");
  const name = names ? String(context.getParameter(names.UNMASKED_RENDERER_WEBGL)) : "";
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

let smooth;

/** A viewer in an element; null where the browser has no WebGL. */
export function createViewer(element) {
  smooth ??= !drawnBySoftware();
  try {
    return window.$3Dmol.createViewer(element, { backgroundColor: "black", backgroundAlpha: 0, antialias: smooth, disableFog: true });
  } catch {
    return null;
  }
}

let hidden;

/** A picture of a cell, as the address of an image; "" where there is no WebGL. */
export function picture(view) {
  if (hidden === undefined) {
    const place = h("div", { class: "offscreen", "aria-hidden": "true" });
    document.body.append(place);
    hidden = createViewer(place);
  }
  if (hidden === null) return "";
  draw(hidden, view);
  return hidden.pngURI();
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The one live viewer of the cards: it moves to the card that is looked at, and turns the crystal there. */
export class Stage {
  constructor() {
    this.place = h("div", { class: "stage", "aria-hidden": "true" });
    this.viewer = undefined;
  }

  show(scene, view) {
    if (this.place.parentElement === scene) return;
    scene.append(this.place);
    this.viewer ??= createViewer(this.place);
    if (!this.viewer) return;
    scene.classList.add("live"); // its picture would be seen through
    this.viewer.resize();
    draw(this.viewer, view);
    if (!still()) this.viewer.spin("vy", 0.35);
  }

  leave(scene) {
    if (this.place.parentElement !== scene) return;
    this.viewer?.spin(false);
    scene.classList.remove("live");
    this.place.remove();
  }
}

const STEP = { ArrowLeft: [-15, "y"], ArrowRight: [15, "y"], ArrowUp: [-15, "x"], ArrowDown: [15, "x"] };

/** A large viewer that is turned by pointer, touch and arrow keys. */
export function large(view, label) {
  const stage = h("div", { class: "stage", tabIndex: 0, role: "application", "aria-label": `${label}. Arrow keys turn it, plus and minus zoom.` });
  let viewer = null;
  const turn = (event) => {
    if (!viewer) return;
    if (event.key in STEP) viewer.rotate(...STEP[event.key]);
    else if (event.key === "+" || event.key === "=") viewer.zoom(1.15);
    else if (event.key === "-") viewer.zoom(1 / 1.15);
    else return;
    event.preventDefault();
  };
  stage.addEventListener("keydown", turn);
  return {
    stage,
    /** To be called once it stands in the page. */
    start() {
      viewer = createViewer(stage);
      if (!viewer) {
        stage.append(h("p", { class: "missing" }, "This browser has no WebGL: no picture."));
        return null;
      }
      viewer.setViewChangeCallback?.((now) => { stage.dataset.view = now.map((x) => x.toFixed(3)).join(" "); });
      draw(viewer, view, { labels: true });
      return viewer;
    },
    draw: (other) => viewer && draw(viewer, other, { labels: true }),
    reset: () => viewer && draw(viewer, view, { labels: true }),
    end() {
      if (!viewer) return;
      viewer.removeAllModels();
      viewer.removeAllShapes();
      const canvas = stage.querySelector("canvas");
      (canvas?.getContext("webgl2") ?? canvas?.getContext("webgl"))?.getExtension("WEBGL_lose_context")?.loseContext();
      viewer = null;
    },
  };
}

/** A colour of the theme as numbers: 3Dmol knows no light-dark(). */
function themeColour(name) {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found || "#555555";
}
