// Before the page is drawn, so that it does not flash: the theme that was chosen here, else the system's.
"use strict";
(() => {
  const order = ["system", "light", "dark"];
  const names = { system: "as the system", light: "light", dark: "dark" };
  let theme = "system";
  try {
    theme = localStorage.getItem("theme") ?? theme;
  } catch {
    // A browser that keeps nothing of pages.
  }
  const apply = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    button?.setAttribute("aria-label", `Theme: ${names[theme]}`);
    button?.setAttribute("title", `Theme: ${names[theme]}`);
  };
  if (!order.includes(theme)) theme = "system";
  apply();
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // It lasts as long as the page, then.
      }
      apply();
    });
  });
})();
