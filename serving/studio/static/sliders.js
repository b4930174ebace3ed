// A slider for every direction, in groups.

import { ends, grouped, signed, stepOf, title } from "./directions.js";
import { $, cross, h } from "./dom.js";

/**
 * @param directions as /v1/directions lists them
 * @param moved (name, value, done) => void: while a slider moves, and when it has (`done`)
 * @returns show(edits): sets all of them
 */
export function sliders(directions, moved) {
  const shows = new Map();
  const sections = grouped(directions).map(([group, all]) =>
    h("fieldset", {}, h("legend", {}, group), ...all.map((one) => slider(one, moved, shows))),
  );
  $("sliders").replaceChildren(...sections);
  $("sliders").onsubmit = (event) => event.preventDefault();
  return (edits) => shows.forEach((show, name) => show(edits[name] ?? 0));
}

function slider(direction, moved, shows) {
  const { name, min_strength: min, max_strength: max, description } = direction;
  const id = `slider-${name}`;
  const step = stepOf(direction);
  // Whole steps from zero on, since browsers count them from the least value.
  const [low, high] = [Math.ceil(min / step - 1e-6) * step, Math.floor(max / step + 1e-6) * step];
  const [left, right] = ends(description);
  const input = h("input", { type: "range", id, min: low, max: high, step, value: 0 });
  if (description) input.setAttribute("aria-describedby", `${id}-ends`);
  const output = h("output", { for: id }, "0");
  const zero = h("button", { type: "button", class: "icon zero", "aria-label": `Reset ${title(name)}` }, cross());
  const caption = h("p", { class: "ends", id: `${id}-ends` }, h("span", {}, left ?? ""));
  if (right) caption.append(h("span", { class: "hidden" }, " to "), h("span", {}, right));
  const row = h(
    "div",
    { class: "slider", "data-direction": name },
    h("label", { for: id }, title(name)),
    output,
    zero,
    input,
    caption,
  );
  const percent = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const show = (value) => {
    if (Number(input.value) !== value) input.value = value;
    output.textContent = signed(value);
    input.setAttribute("aria-valuetext", signed(value));
    row.classList.toggle("moved", value !== 0);
    const origin = Math.min(Math.max(0, low), high);
    row.style.setProperty("--null", percent(origin));
    row.style.setProperty("--from", percent(Math.min(value, origin)));
    row.style.setProperty("--to", percent(Math.max(value, origin)));
  };
  const rounded = () => Number(Number(input.value).toFixed(6));
  input.addEventListener("input", () => (show(rounded()), moved(name, rounded(), false)));
  input.addEventListener("change", () => moved(name, rounded(), true));
  zero.addEventListener("click", () => {
    show(0);
    moved(name, 0, true);
    input.focus();
  });
  shows.set(name, show);
  show(0);
  return row;
}
