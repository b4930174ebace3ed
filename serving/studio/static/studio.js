// The page: from a photo to a face, to edits of it, to a file.

import { Api, Away, Refusal } from "./api.js";
import { $, announce, duration, h, megabytes } from "./dom.js";
import { chooseFace } from "./faces.js";
import { History } from "./history.js";
import { TYPES, intake } from "./intake.js";
import { cutOut, wholeQuad } from "./pictures.js";
import { recipe } from "./recipes.js";
import { sliders } from "./sliders.js";
import { Stage } from "./stage.js";
import { title } from "./directions.js";

const api = new Api(askKey);
let model = null;
let directions = [];
let showSliders = () => {};
let session = null;
let history = new History();
let opening = 0;
const timings = new Map();

const stage = new Stage({
  ask: (wanted, signal) => api.edit(session, wanted, signal),
  timed: (timing) => timed("Edit", timing),
  failed,
  setEdit: (name, value) => moved(name, value, true),
});

// ---- From a photo to a face

async function take(photo, name) {
  hideProblem();
  if (!(await ready())) return;
  if (!TYPES.includes(photo.type)) return problem(`${name || "This"} is not a JPEG, PNG or WebP picture.`);
  if (photo.size > model.photo_bytes) {
    return problem(`This photo has ${megabytes(photo.size)}; ${megabytes(model.photo_bytes)} is the most. Scale it down first.`);
  }
  const mine = ++opening;
  leave();
  const url = URL.createObjectURL(photo);
  session = { photo, name, url, face: 0, aligned: false, handle: null, keeps: model.keeps_photos };
  go("faces");
  document.body.classList.add("busy");
  try {
    const there = await api.faces(photo);
    if (mine !== opening) return;
    timed("Find faces", there.timing);
    Object.assign(session, { width: there.width, height: there.height, faces: there.faces });
    if (!there.faces.length) {
      document.body.classList.remove("busy");
      go("empty");
      return problem("No face was found in this photo.", true);
    }
    choose();
  } catch (error) {
    if (mine === opening) refused(error, () => take(photo, name));
  }
}

function choose() {
  document.body.classList.remove("busy");
  go("faces");
  chooseFace(session, (face) => edit({ face, aligned: false }));
}

async function edit({ face, aligned }) {
  const mine = ++opening;
  if (document.body.dataset.step !== "faces") go("faces");
  document.body.classList.add("busy");
  $("faces-title").textContent = "Reading the face…";
  try {
    const inversion = await api.invert(session.photo, { face, aligned });
    const bitmap = await createImageBitmap(session.photo);
    if (mine !== opening) return;
    timed("Invert", inversion.timing);
    const { width, height, handle } = inversion;
    const quad = inversion.alignment?.quad ?? wholeQuad(width, height);
    Object.assign(session, { face, aligned, handle, width, height, quad });
    if (session.crop) URL.revokeObjectURL(session.crop);
    session.crop = await cutOut(bitmap, quad, model.width, model.height);
    bitmap.close();
    history = new History();
    $("other-face").hidden = (session.faces?.length ?? 0) < 2;
    go("editing");
    stage.open(session, model, directions);
    show();
    announce("The face is ready to be edited.");
  } catch (error) {
    if (mine === opening) refused(error, () => edit({ face, aligned }));
  } finally {
    document.body.classList.remove("busy");
  }
}

/** What cannot be done with a photo at all leads back to the start; a server that is away is tried again. */
function refused(error, again) {
  document.body.classList.remove("busy");
  if (error instanceof Away) return away(again);
  go("empty");
  failed(error, again);
}

function leave() {
  stage.close();
  if (session) for (const url of [session.url, session.crop]) if (url) URL.revokeObjectURL(url);
  session = null;
}

function go(step) {
  document.body.dataset.step = step;
  for (const id of ["empty", "faces", "editing"]) $(id).hidden = id !== step;
  if (step === "faces") {
    $("faces-photo").src = session.url;
    $("faces-title").textContent = "Looking for faces…";
    $("outlines").replaceChildren();
  }
}

// ---- Edits

function moved(name, value, done) {
  const edits = { ...stage.edits, [name]: value };
  if (!value) delete edits[name];
  stage.touched = name;
  stage.edits = edits;
  if (done) {
    history.add(edits, name);
    show();
  } else {
    stage.refresh();
  }
}

/** Everything as the edits are. */
function show() {
  showSliders(stage.edits);
  $("undo").disabled = !history.canUndo;
  $("redo").disabled = !history.canRedo;
  $("reset").disabled = !Object.keys(stage.edits).length;
  stage.refresh();
}

function turn(edits, said) {
  stage.edits = edits;
  show();
  announce(said);
}

function reset() {
  history.add({});
  turn({}, "All edits are reset.");
}

// ---- What goes wrong

function problem(text, offerAligned = false) {
  $("problem-text").textContent = text;
  $("problem-aligned").hidden = !offerAligned;
  $("problem").hidden = false;
}

function hideProblem() {
  $("problem").hidden = true;
}

function failed(error, again) {
  if (error.name === "AbortError") return;
  if (error instanceof Away) return away(again);
  const noFace = error instanceof Refusal && error.kind === "no-face";
  const text = error instanceof Refusal ? error.message : "Something went wrong in this page; load it again.";
  problem(`${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`, noFace);
  if (!(error instanceof Refusal)) throw error;
}

let watching = false;

/** Waits for the server, then goes on. */
async function away(again) {
  $("offline").hidden = false;
  if (watching) return;
  watching = true;
  for (let wait = 1000; ; wait = Math.min(1.5 * wait, 8000)) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    try {
      await api.health();
      break;
    } catch {
      // Not yet.
    }
  }
  watching = false;
  $("offline").hidden = true;
  announce("The server answers again.");
  again?.();
}

// ---- Files and code

async function download() {
  const [what, format] = [$("take-what").value, $("take-format").value];
  const button = $("download");
  button.disabled = true;
  try {
    const { data, timing } = await api.edit(session, { edits: stage.edits, paste: what === "photo", format, quality: 95 });
    timed("Download", timing);
    const url = URL.createObjectURL(data);
    const base = session.name.replace(/\.[^.]*$/, "") || "photo";
    h("a", { href: url, download: `${base}-edited.${format === "jpeg" ? "jpg" : format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce("Downloaded.");
  } catch (error) {
    failed(error, () => {});
  } finally {
    button.disabled = false;
  }
}

function showRecipe() {
  const kind = document.querySelector("input[name=recipe]:checked").value;
  const { name, face, aligned } = session;
  const paste = $("take-what").value === "photo" || kind === "command";
  const format = $("take-format").value;
  const bundle = model.name === "portrait" || model.name === null ? null : model.name;
  const { secured } = api;
  $("recipe").textContent = recipe(kind, { edits: stage.edits, name, face, aligned, paste, format, secured, bundle, origin: location.origin });
  $("copy-do").textContent = "Copy";
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("recipe").textContent);
    $("copy-do").textContent = "Copied";
    announce("Copied.");
  } catch {
    // Where the page may not, the text is marked for the person to copy.
    getSelection().selectAllChildren($("recipe"));
    $("copy-do").textContent = "Press Ctrl+C";
  }
}

// ---- Model and latency

const STEPS = { photo: "reading the photo", queue: "waiting", backend: "model", encode: "encoding", total: "round trip" };

function timed(what, timing) {
  timings.set(what, timing);
  const facts = [
    ["Bundle", model.name],
    ["Family", model.family],
    ["Precision", model.precision],
    ["Runtime", model.runtime],
    ["Picture", `${model.width} × ${model.height}`],
  ].filter(([, value]) => value);
  for (const [step, parts] of timings) {
    const shown = Object.entries(STEPS).filter(([key]) => parts[key] >= 0.05);
    facts.push([step, shown.map(([key, name]) => `${name} ${duration(parts[key])}`).join(" · ")]);
  }
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// ---- Start

function askKey(again) {
  const dialog = $("key-dialog");
  dialog.querySelector("p").textContent = again
    ? "This server does not know that key. Try another one."
    : "This server asks for a key. It stays in this tab and is sent to this server alone.";
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => (resolve($("key").value.trim()), ($("key").value = "")), { once: true });
  });
}

let loading = null;

/** Whether the model is known; asks for it, once at a time. */
async function ready() {
  if (model) return true;
  loading ??= load().finally(() => (loading = null));
  return loading;
}

async function load() {
  try {
    [model, directions] = [await api.model(), await api.directions()];
  } catch (error) {
    failed(error, ready);
    return false;
  }
  showSliders = sliders(directions, moved);
  $("limit").textContent = `, up to ${megabytes(model.photo_bytes)}`;
  const minutes = Math.round(model.photo_seconds / 60);
  $("privacy").textContent = model.keeps_photos
    ? `Photos stay in the memory of ${model.runtime === "triton" ? "this server" : "this machine"} and are forgotten after ${minutes} ${minutes === 1 ? "minute" : "minutes"} without use. Edit photos of people only with their consent, and say that a picture was edited.`
    : "Photos are not kept. Edit photos of people only with their consent, and say that a picture was edited.";
  stage.offers(model);
  timed("Model", model.timing);
  timings.delete("Model");
  return true;
}

intake(take);
$("new-photo").addEventListener("click", () => {
  opening++;
  hideProblem();
  leave();
  go("empty");
  $("choose").focus();
});
$("other-face").addEventListener("click", () => (opening++, stage.close(), choose()));
$("undo").addEventListener("click", () => turn(history.undo(), "Undone."));
$("redo").addEventListener("click", () => turn(history.redo(), "Done again."));
$("reset").addEventListener("click", reset);
$("problem-close").addEventListener("click", hideProblem);
$("problem-aligned").addEventListener("click", () => (hideProblem(), edit({ face: 0, aligned: true })));
$("download").addEventListener("click", download);
$("copy-open").addEventListener("click", () => (showRecipe(), $("copy").showModal()));
$("copy-do").addEventListener("click", copy);
for (const radio of document.querySelectorAll("input[name=recipe]")) radio.addEventListener("change", showRecipe);
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
addEventListener("keydown", (event) => {
  if (document.body.dataset.step !== "editing" || !(event.ctrlKey || event.metaKey) || event.altKey) return;
  const key = event.key.toLowerCase();
  const button = key === "y" || (key === "z" && event.shiftKey) ? $("redo") : key === "z" ? $("undo") : null;
  if (button && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    button.click();
  }
});
ready();
