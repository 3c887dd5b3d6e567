/* The reference of the API, drawn from its own description. */
import { $, h } from "./dom.js";

const kind = (schema) => {
  if (!schema) return "";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return [...new Set(schema.anyOf.map(kind))].join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.type ?? schema.$ref?.split("/").at(-1) ?? "any";
};

const bounds = (schema) => ["minimum", "maximum", "minLength", "maxLength"]
  .filter((name) => schema?.[name] !== undefined).map((name) => `${name} ${schema[name]}`).join(", ");

const rows = (entries) => h("table", {},
  h("thead", {}, h("tr", {}, ["name", "type", "default", ""].map((name) => h("th", {}, name)))),
  h("tbody", {}, entries.map(([name, schema, text, required]) => h("tr", {},
    h("td", {}, h("code", {}, name)), h("td", {}, h("code", {}, kind(schema))),
    h("td", {}, required ? "required" : h("code", {}, JSON.stringify(schema?.default ?? null))),
    h("td", {}, [text ?? schema?.description ?? "", bounds(schema)].filter(Boolean).join("; "))))));

function body(operation, schemas) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const kinds = (schema?.oneOf ?? schema?.anyOf ?? []).map(({ $ref }) => schemas[$ref.split("/").at(-1)]);
  return kinds.map((one) => [h("h3", {}, `kind: ${one.properties.kind.const}`), h("p", { class: "summary" }, one.description),
    rows(Object.entries(one.properties).map(([name, property]) => [name, property, null, one.required?.includes(name)]))]);
}

const described = await (await fetch("api/v1/openapi.json")).json();
const sections = new Map();
for (const [path, operations] of Object.entries(described.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const tag = operation.tags?.[0] ?? "other";
    const parameters = (operation.parameters ?? []).map((one) => [one.name, one.schema, one.description, one.required]);
    const block = h("details", {},
      h("summary", {}, h("span", { class: "method" }, method.toUpperCase()), h("code", {}, path), h("span", { class: "summary" }, (operation.description ?? "").split("\n")[0])),
      parameters.length ? rows(parameters) : null, body(operation, described.components.schemas));
    sections.set(tag, [...(sections.get(tag) ?? []), block]);
  }
}
$("reference").append(...[...sections].flatMap(([tag, blocks]) => [h("h2", {}, tag), ...blocks]));
$("example").textContent = `curl ${location.origin}/api/v1/jobs -H 'Content-Type: application/json' \\
  -d '{"kind": "generate", "formula": "TiO2", "z": 2, "n": 4, "seed": 1}'
curl -N ${location.origin}/api/v1/jobs/ID/events`;
