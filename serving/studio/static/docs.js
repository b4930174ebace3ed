// The OpenAPI document as a page: operations, what they take and answer, schemas and examples.

import { $, h } from "./dom.js";

const VERBS = ["get", "post", "put", "patch", "delete"];
let components = {};

const nameOf = (reference) => reference.split("/").pop();
const anchor = (name) => `schema-${name}`;

/** A type in a few words, with links to schemas that have names. */
function typeOf(schema) {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return [h("a", { href: `#${anchor(name)}` }, name)];
  }
  const parts = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (parts) return parts.flatMap((part, i) => (i ? [" or ", ...typeOf(part)] : typeOf(part)));
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((one) => JSON.stringify(one)).join(" | ")];
  if (schema.type === "array" && schema.prefixItems) return [`[${schema.prefixItems.map((one) => one.type).join(", ")}]`];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema.type === "object" && schema.additionalProperties?.type) return ["object of ", ...typeOf(schema.additionalProperties)];
  if (schema.contentMediaType && schema.contentSchema) return ["JSON text of ", ...typeOf(schema.contentSchema)];
  return [[schema.type ?? "anything", schema.format === "binary" ? " (bytes)" : ""].join("")];
}

/** Limits of a value: "16 to 4096". */
function limitsOf(schema) {
  const node = schema.anyOf?.find((one) => one.type !== "null") ?? schema;
  const low = node.minimum ?? node.exclusiveMinimum;
  const high = node.maximum ?? node.exclusiveMaximum;
  const range = low !== undefined && high !== undefined ? `${low} to ${high}` : low !== undefined ? `from ${low}` : high !== undefined ? `up to ${high}` : "";
  const fallback = schema.default === undefined || schema.default === null ? "" : `by default ${JSON.stringify(schema.default)}`;
  return [range, fallback].filter(Boolean).join(", ");
}

function entry(name, schema, required, description) {
  const term = h("dt", {}, h("code", {}, name), h("span", { class: "type" }, ...typeOf(schema)));
  if (required) term.append(h("span", { class: "needed" }, "required"));
  const text = [description ?? schema.description, limitsOf(schema)].filter(Boolean).join(" — ");
  return h("div", {}, term, ...(text ? [h("dd", {}, text)] : []));
}

function properties(schema) {
  const fields = Object.entries(schema.properties ?? {});
  const needed = schema.required ?? [];
  return h("dl", {}, ...fields.map(([name, one]) => entry(name, one, needed.includes(name))));
}

/** A value as a schema allows it. */
function exampleOf(schema, depth = 0) {
  if (schema.$ref) return exampleOf(components[nameOf(schema.$ref)] ?? {}, depth + 1);
  if (schema.examples) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  const part = schema.anyOf?.find((one) => one.type !== "null") ?? schema.allOf?.[0];
  if (part) return exampleOf(part, depth);
  if (schema.enum) return schema.enum[0];
  if (schema.const !== undefined) return schema.const;
  if (depth > 6) return null;
  if (schema.type === "object") {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, one]) => [name, exampleOf(one, depth + 1)]));
  }
  if (schema.prefixItems) return schema.prefixItems.map((one) => exampleOf(one, depth + 1));
  if (schema.type === "array") return Array(Math.min(schema.minItems ?? 1, 5)).fill(exampleOf(schema.items ?? {}, depth + 1));
  if (schema.pattern?.startsWith("^[0-9a-f]")) return "0".repeat(Number(schema.pattern.match(/\{(\d+)\}/)?.[1] ?? 8));
  return { string: "text", integer: schema.minimum ?? 1, number: schema.minimum ?? 1.5, boolean: false }[schema.type] ?? null;
}

const block = (text, label) => h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", {}, text));

function curl(path, verb, operation) {
  const kinds = Object.keys(operation.requestBody?.content ?? {});
  const lines = [`curl ${location.origin}${path}`];
  if (operation.security?.length) lines.push(`-H "Authorization: Bearer $KEY"`);
  if (kinds.includes("application/json")) {
    const schema = operation.requestBody.content["application/json"].schema;
    const needed = components[nameOf(schema.$ref ?? "")]?.required ?? [];
    const body = Object.fromEntries(Object.entries(exampleOf(schema)).filter(([name]) => needed.includes(name)));
    lines.push(`--json '${JSON.stringify(body)}' -o edited.png`);
  } else if (kinds.length) {
    lines.push("-H 'Content-Type: image/jpeg' --data-binary @photo.jpg");
  }
  return lines.join(" \\\n  ");
}

function operationOf(path, verb, operation) {
  const id = operation.operationId;
  const parts = [
    h("h2", {}, h("span", { class: "verb" }, verb.toUpperCase()), path),
    h("p", { class: "lead" }, operation.description ?? operation.summary ?? ""),
    block(curl(path, verb, operation), `curl for ${path}`),
  ];
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    const all = parameters.map((one) => entry(`${one.name}`, one.schema, one.required, [`in the ${one.in}`, one.description ?? one.schema.description].filter(Boolean).join(": ")));
    parts.push(h("h3", {}, "Parameters"), h("dl", {}, ...all));
  }
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  if (bodies.length) {
    const all = bodies.map(([kind, { schema }]) => {
      const row = entry(kind, schema, false, "");
      if (schema.properties) row.append(h("dd", {}, properties(schema)));
      return row;
    });
    parts.push(h("h3", {}, "Body"), h("dl", {}, ...all));
  }
  const answers = Object.entries(operation.responses).map(([status, answer]) => {
    const kinds = Object.entries(answer.content ?? {});
    const types = kinds.flatMap(([kind, { schema }], i) => [i ? ", " : "", h("code", {}, kind), ...(schema.$ref ? [" ", ...typeOf(schema)] : [])]);
    return h("div", {}, h("dt", {}, h("code", {}, status), h("span", { class: "type" }, ...types)), h("dd", {}, answer.description));
  });
  parts.push(h("h3", {}, "Answers"), h("dl", {}, ...answers));
  return h("section", { id: `operation-${id}`, "aria-label": `${verb.toUpperCase()} ${path}` }, ...parts);
}

function schemaOf(name, schema) {
  return h(
    "section",
    { id: anchor(name), "aria-label": `Schema ${name}` },
    h("h2", {}, name),
    h("p", { class: "lead" }, schema.description ?? ""),
    properties(schema),
    h("h3", {}, "Example"),
    block(JSON.stringify(exampleOf(schema), null, 2), `Example of ${name}`),
  );
}

async function load() {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error();
  const document = await answer.json();
  components = document.components?.schemas ?? {};
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    VERBS.filter((verb) => methods[verb]).map((verb) => [path, verb, methods[verb]]),
  );
  const names = Object.keys(components).sort();
  const link = (target, text) => h("li", {}, h("a", { href: `#${target}` }, text));
  const heading = (text) => h("li", { class: "group" }, text);
  $("contents").append(
    h(
      "ul",
      {},
      heading("Operations"),
      ...operations.map(([path, verb, one]) => link(`operation-${one.operationId}`, `${verb.toUpperCase()} ${path}`)),
      heading("Schemas"),
      ...names.map((name) => link(anchor(name), name)),
    ),
  );
  $("interface").replaceChildren(
    h("p", { class: "lead" }, document.info.description ?? ""),
    ...operations.map((one) => operationOf(...one)),
    ...names.map((name) => schemaOf(name, components[name])),
  );
  if (location.hash) globalThis.document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

load().catch(() => ($("loading").textContent = "The server does not answer; load this page again."));
