// Which face: outlines on the photo, each a button; a photo with one face needs no choice.

import { $, h } from "./dom.js";

/** @param chosen (index) => void */
export function chooseFace({ faces, width, height }, chosen) {
  $("faces-frame").style.setProperty("--ratio", width / height);
  const choices = faces.map(({ box: [left, top, right, bottom] }, i) => {
    const text = `Face ${i + 1} of ${faces.length}${i === 0 && faces.length > 1 ? ", the largest" : ""}`;
    const button = h("button", { type: "button", "aria-label": text, "aria-pressed": "false" });
    if (faces.length > 1) button.append(h("b", { "aria-hidden": "true" }, String(i + 1)));
    const [x0, x1] = [Math.max(0, left), Math.min(width, right)];
    const [y0, y1] = [Math.max(0, top), Math.min(height, bottom)];
    const place = { left: x0 / width, top: y0 / height, width: (x1 - x0) / width, height: (y1 - y0) / height };
    for (const [name, share] of Object.entries(place)) button.style[name] = `${100 * share}%`;
    button.addEventListener("click", () => {
      choices.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      chosen(i);
    });
    return button;
  });
  $("faces-title").textContent = `${faces.length} faces: which one?`;
  $("outlines").replaceChildren(...choices);
  if (faces.length === 1) choices[0].click();
  else $("faces-title").focus();
}
