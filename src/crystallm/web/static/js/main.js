/* The page: what it is made of, and the address that holds the request. */
import * as api from "./api.js";
import { Cards } from "./cards.js";
import { compare, open } from "./detail.js";
import { $, fill, h } from "./dom.js";
import { Form } from "./form.js";
import { Run } from "./run.js";
import { know } from "./scene.js";
import { formula } from "./typeset.js";

const EXAMPLES = [
  ["TiO2", "z=2&space_group=P4_2/mnm", "rutile's cell"],
  ["NaCl", "z=4", "four formula units"],
  ["SrTiO3", "", "a perovskite?"],
  ["MgAl2O4", "z=8", "a spinel?"],
  ["LiFePO4", "z=4&space_group=62", "olivine's group"],
  ["SiO2", "z=auto&space_group=auto&n=16", "all left open"],
];

function examples() {
  fill($("examples"), EXAMPLES.map(([name, rest, what]) => h("li", {},
    h("a", { href: `?formula=${name}${rest ? `&${rest}` : ""}` }, h("strong", {}, formula(name)), h("span", {}, what)))));
}

function theme() {
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds for this page then */ }
  });
}

async function start() {
  theme();
  examples();
  let about;
  try {
    about = await api.about();
  } catch (error) {
    $("kind-error").textContent = error.message;
    return;
  }
  know(about.elements);
  let run;
  let routed; // the query that is shown: a fragment alone is no other request
  const cards = new Cards((crystal) => open(run.id, crystal), compare);
  const form = new Form(about, (request) => {
    if (request.kind !== "solve") { // an address holds no pattern
      history.pushState(null, "", `?${Form.query(request)}`);
      routed = location.search;
    }
    $("seed").value = "";
    run.begin(request);
  });
  run = new Run(cards, form);

  /** Run the request of the address; a missing seed is drawn and added to it. */
  const route = () => {
    routed = location.search;
    if (!form.take(new URLSearchParams(location.search))) {
      run.leave();
      $("run").hidden = true;
      $("welcome").hidden = false;
      return;
    }
    const request = form.request();
    if (!request) return;
    $("seed").value = "";
    history.replaceState(null, "", `?${Form.query(request)}`);
    routed = location.search;
    run.begin(request);
  };
  addEventListener("popstate", () => location.search !== routed && route());
  route();
  document.documentElement.dataset.ready = "true";
  if (!location.search) $("formula").focus({ preventScroll: true });
}

start();
