// The picture, what it is compared with, the heat map and the strip.

import { signed, stripOf, title } from "./directions.js";
import { $, announce, duration, h } from "./dom.js";
import { drawHeat, wholeQuad } from "./pictures.js";
import { Queue } from "./queue.js";

const MOST_PICTURES = 96;
const THUMB = 208;

export class Stage {
  /** @param hooks {ask(wanted, signal), timed(timing), failed(error, again), setEdit(name, value)} */
  constructor(hooks) {
    this.hooks = hooks;
    this.queue = new Queue(["main", "before", "heat"]);
    this.pictures = new Map();
    this.session = null;
    this.edits = {};
    this.touched = null;
    for (const radio of document.querySelectorAll("input[name=view]")) {
      radio.addEventListener("change", () => (this.layOut(), this.refresh()));
    }
    $("compare").addEventListener("change", () => this.beside());
    $("heat-on").addEventListener("change", () => this.beside());
    $("strip").addEventListener("toggle", () => this.thumbs());
    $("divider").addEventListener("input", () => this.cut());
    this.cut();
  }

  get inPhoto() {
    return document.querySelector("input[name=view]:checked").value === "photo";
  }

  /** Leaves out what the server does not offer. */
  offers(model) {
    const option = $("compare").querySelector("[value=linear]");
    option.disabled = option.hidden = !model.renderings.includes("linear");
    $("heat-on").closest("label").hidden = !model.renderings.includes("map");
  }

  open(session, model, directions) {
    this.close();
    Object.assign(this, { session, model, directions, edits: {}, touched: null });
    document.querySelector("input[name=view][value=face]").checked = true;
    document.querySelector("input[name=view][value=photo]").disabled = session.aligned;
    $("take-what").value = session.aligned ? "face" : "photo";
    $("take-what").querySelector("[value=photo]").disabled = session.aligned;
    // Until the first rendering is there: the photo itself.
    $("after").src = session.crop;
    this.layOut();
  }

  close() {
    this.queue.drop(() => true);
    for (const { url } of this.pictures.values()) URL.revokeObjectURL(url);
    this.pictures.clear();
    this.session = null;
    this.busy(false);
  }

  layOut() {
    const [width, height] = this.size;
    $("frame").style.setProperty("--ratio", width / height);
    $("thumbs").style.setProperty("--shape", this.model.width / this.model.height);
    const linear = $("compare").querySelector("[value=linear]");
    linear.disabled = !this.model.renderings.includes("linear") || (this.inPhoto && !this.session.keeps);
    if (linear.disabled && $("compare").value === "linear") $("compare").value = "off";
  }

  get size() {
    const { model, session } = this;
    return this.inPhoto ? [session.width, session.height] : [model.width, model.height];
  }

  /** What the view asks of the server; a photo comes no larger than the page shows it. */
  wanted(more = {}) {
    if (!this.inPhoto) return { edits: this.edits, ...more };
    const shown = Math.max($("frame").clientWidth, $("frame").clientHeight) * Math.min(devicePixelRatio, 2);
    return { edits: this.edits, paste: true, side: Math.min(4096, Math.max(512, Math.ceil(shown / 256) * 256)), ...more };
  }

  /** The picture of a wish: at once if it is at hand, else when the queue has it. */
  picture(slot, wanted, done) {
    const key = JSON.stringify(wanted);
    const hit = this.pictures.get(key);
    if (hit) {
      this.queue.drop((one) => one === slot);
      this.pictures.delete(key);
      this.pictures.set(key, hit);
      return done(hit);
    }
    const work = (signal) => this.hooks.ask(wanted, signal);
    this.queue.want(slot, work, (error, answer) => {
      if (error) return this.fail(error);
      const picture = { ...answer, url: URL.createObjectURL(answer.data) };
      this.pictures.set(key, picture);
      if (this.pictures.size > MOST_PICTURES) {
        const [oldest, { url }] = this.pictures.entries().next().value;
        this.pictures.delete(oldest);
        // Not at once: it may be on the page.
        setTimeout(() => URL.revokeObjectURL(url), 10_000);
      }
      done(picture);
    });
  }

  fail(error) {
    this.busy(false);
    this.hooks.failed(error, () => this.session && this.refresh());
  }

  busy(is) {
    $("frame").classList.toggle("busy", is);
    document.body.dataset.busy = is ? "yes" : "no";
  }

  /** The main picture, then all that hangs on it. */
  refresh() {
    if (!this.session) return;
    this.busy(true);
    this.queue.drop((slot) => slot !== "main");
    const wanted = this.wanted();
    this.picture("main", wanted, async (picture) => {
      if (!(await show($("after"), picture.url)) || !this.session) return;
      this.hooks.timed(picture.timing);
      // On the way of a slider that goes on: the next one is under way already.
      if (JSON.stringify(this.wanted()) !== JSON.stringify(wanted)) return;
      $("after").alt = this.inPhoto ? "The edited photo" : "The edited face";
      $("timing").textContent = `Edited in ${duration(picture.timing.total)}`;
      $("timing").title = "From the request to the picture";
      this.busy(false);
      this.beside();
      this.thumbs();
    });
  }

  cut() {
    const share = Number($("divider").value);
    $("frame").style.setProperty("--cut", `${share}%`);
    $("divider").setAttribute("aria-valuetext", `${Math.round(share)} % before`);
  }

  /** What is compared with, and the heat map. */
  beside() {
    if (!this.session) return;
    const compare = $("compare").value;
    const names = { photo: "Photo", reconstruction: "Reconstruction", linear: "Linear editing" };
    const reveal = async (url) => {
      if ($("compare").value !== compare || !(await show($("before"), url))) return;
      $("before-tag").textContent = names[compare];
      this.divide($("compare").value !== "off");
    };
    if (compare === "off") this.divide(false);
    else if (compare === "photo") reveal(this.inPhoto ? this.session.url : this.session.crop);
    else if (compare === "reconstruction") this.picture("before", this.wanted({ edits: {} }), ({ url }) => reveal(url));
    else this.picture("before", this.wanted({ rendering: "linear" }), ({ url }) => reveal(url));
    const hot = $("heat-on").checked && Object.keys(this.edits).length > 0;
    if (!hot) $("heat").hidden = true;
    else {
      this.picture("heat", { edits: this.edits, rendering: "map", format: "png" }, async ({ data }) => {
        const quad = this.inPhoto ? this.session.quad : wholeQuad(...this.size);
        await drawHeat($("heat"), data, this.size, quad);
        $("heat").hidden = !$("heat-on").checked;
      });
    }
  }

  divide(on) {
    for (const id of ["before", "divider", "before-tag", "after-tag"]) $(id).hidden = !on;
    $("frame").classList.toggle("divided", on);
  }

  /** The strip over the direction that was moved last. */
  thumbs() {
    if (!this.session || !$("strip").open || !this.directions.length) return;
    const name = this.touched ?? Object.keys(this.edits)[0] ?? this.directions[0].name;
    const direction = this.directions.find((one) => one.name === name);
    $("strip-name").textContent = `· ${title(name)}`;
    const now = this.edits[name] ?? 0;
    const strengths = stripOf(direction);
    const nearest = strengths.reduce((a, b) => (Math.abs(b - now) < Math.abs(a - now) ? b : a));
    const buttons = strengths.map((value, i) => {
      const edits = { ...this.edits, [name]: value };
      if (!value) delete edits[name];
      const label = `${title(name)} ${signed(value)}`;
      const button = h("button", { type: "button", "aria-label": label, "aria-pressed": String(value === nearest) });
      button.append(h("i"), h("span", {}, signed(value)));
      button.addEventListener("click", () => (this.hooks.setEdit(name, value), announce(label)));
      this.picture(`strip${i}`, { edits, side: THUMB, quality: 80 }, ({ url }) => {
        button.querySelector("i, img").replaceWith(h("img", { src: url, alt: "" }));
      });
      return button;
    });
    const focused = [...$("thumbs").children].indexOf(document.activeElement);
    $("thumbs").replaceChildren(...buttons);
    if (focused >= 0) buttons[focused]?.focus();
  }
}

/** Puts a picture on the page once it is decoded, so that nothing flickers; whether it is still wanted. */
async function show(element, url) {
  element.dataset.next = url;
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return false;
  }
  if (element.dataset.next !== url) return false;
  element.src = url;
  return true;
}
