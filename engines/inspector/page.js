"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const table = $("#layers"), body = $("tbody", table), form = $("#controls"), fields = form.elements;
  const rows = $$("tr", body), heads = $$("thead th", table), keys = heads.map((th) => th.dataset.key);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const direction = $("#direction"), facets = $$("[data-facet]", form), maps = $$(".map");
  const defaults = Object.fromEntries(new FormData(form));
  const collator = new Intl.Collator("en", { numeric: true });

  const cell = (row, key) => row.cells[keys.indexOf(key)];
  const value = (row, key) => { const text = cell(row, key)?.dataset.v; return text === undefined ? null : Number(text); };
  const numeric = new Set(keys.filter((key) => rows.some((row) => value(row, key) !== null)));
  const first = (key) => (key !== "n" && numeric.has(key) ? "desc" : "asc");
  // Of two reports a row counts with the first one's MACs, or what the second alone has.
  const macs = rows.map((row) => value(row, "macs") || value(row, "macsA") || value(row, "macsB") || 0);
  const allMacs = macs.reduce((sum, each) => sum + each, 0);
  const number = (value) => {
    for (const [scale, prefix] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
      if (value >= scale) return (value / scale).toPrecision(3) + prefix;
    return String(value);
  };

  function order() {
    const key = fields.sort.value, sign = direction.value === "desc" ? -1 : 1, indices = rows.map((_, i) => i);
    if (numeric.has(key)) {
      // What has no value comes last in either direction.
      const values = rows.map((row) => value(row, key));
      indices.sort((a, b) => {
        const x = values[a], y = values[b];
        if (x === y) return a - b;
        if (x === null) return 1;
        if (y === null) return -1;
        return sign * (x - y);
      });
    } else {
      const words = rows.map((row) => cell(row, key).textContent);
      indices.sort((a, b) => sign * collator.compare(words[a], words[b]) || a - b);
    }
    body.append(...indices.map((i) => rows[i]));
    direction.textContent = sign < 0 ? "↓" : "↑";
    for (const th of heads) {
      if (th.dataset.key === key) th.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
  }

  function select() {
    const words = fields.filter.value.toLowerCase().split(/\s+/).filter(Boolean), fitting = new Set();
    let sum = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word))
        || facets.some((facet) => facet.value && cell(row, facet.name).textContent !== facet.value);
      if (!row.hidden) { sum += macs[i]; fitting.add(row.id); }
    });
    const some = fitting.size < rows.length;
    const share = allMacs ? `, ${number(sum)} MACs (${some ? (100 * sum / allMacs).toFixed(1) : 100} %)` : "";
    $("#count").textContent = `${fitting.size} of ${rows.length} rows${share}`;
    for (const mark of $$(".map .c")) mark.classList.toggle("dim", some && !fitting.has(mark.hash.slice(1)));
  }

  function widen() {
    for (const map of maps) {
      map.classList.toggle("equal", fields.map.value === "equal");
      const cells = $$(".c", map);
      // As many lines as give most cells room, so that a cell of the full width is 1/lines of all MACs.
      map.style.setProperty("--rows", String(Math.max(2, Math.min(12, Math.round(cells.length * 9 / map.clientWidth) + 2))));
      const sizes = cells.map((cell) => cell.clientWidth);
      cells.forEach((cell, i) => cell.classList.toggle("t", sizes[i] >= 20));
    }
  }

  function show() { order(); select(); widen(); }

  // What the controls say stands in the page's address, but for what they say at first.
  function read() {
    if (/^#l\d+$/.test(location.hash)) return show();
    const given = new URLSearchParams(location.hash.slice(1));
    form.reset();
    for (const [name, wanted] of given) if (Object.hasOwn(defaults, name)) fields[name].value = wanted;
    for (const choice of $$("select", form)) if (choice.selectedIndex < 0) choice.selectedIndex = 0;
    direction.value = given.get("dir") ?? first(fields.sort.value);
    show();
  }

  function change() {
    const now = new URLSearchParams([...new FormData(form)].filter(([name, wanted]) => wanted !== defaults[name]));
    if (direction.value !== first(fields.sort.value)) now.set("dir", direction.value);
    history.replaceState(null, "", "#" + now);
    show();
  }

  function sort(key, turn) {
    const turned = direction.value === "desc" ? "asc" : "desc";
    direction.value = turn && key === fields.sort.value ? turned : first(key);
    fields.sort.value = key;
    change();
  }

  function describe(row) {
    const cells = [...row.cells], name = ($("summary, span", cells[1]) ?? cells[1]).textContent;
    const rest = cells.map((cell, i) => `${heads[i].textContent} ${cell.textContent.trim()}`);
    return [name, ...rest.filter((_, i) => i > 1 && cells[i].textContent.trim())].join(" · ");
  }

  const marked = (event) => event.target.closest(".map .c, .plot .m");
  const rowOf = (mark) => document.getElementById(mark.dataset.l ?? mark.hash.slice(1));

  function point(event) {
    const mark = marked(event);
    if (!mark) return;
    const words = describe(rowOf(mark));
    $(".status", mark.closest("section")).textContent = words;
    if (mark.matches(".c")) mark.setAttribute("aria-label", words);
  }

  function jump(event) {
    const mark = marked(event);
    if (!mark) return;
    event.preventDefault();
    const row = rowOf(mark);
    if (row.hidden) {
      for (const field of [fields.filter, ...facets]) field.value = "";
      change();
    }
    for (const old of $$(".hit", body)) old.classList.remove("hit");
    row.classList.add("hit");
    row.scrollIntoView({ block: "center" });
    row.focus({ preventScroll: true });
  }

  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !event.target.matches(".c")) return;
    const cells = $$(".c", event.currentTarget);
    const at = Math.max(0, Math.min(cells.length - 1, cells.indexOf(event.target) + step));
    event.preventDefault();
    event.target.tabIndex = -1;
    cells[at].tabIndex = 0;
    cells[at].focus();
  }

  for (const field of fields) field.addEventListener("input", () => (field === fields.sort ? sort(field.value, false) : change()));
  direction.addEventListener("click", () => sort(fields.sort.value, true));
  $("#clear").addEventListener("click", () => { history.replaceState(null, "", "#"); read(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  heads.forEach((th) => $("button", th).addEventListener("click", () => sort(th.dataset.key, true)));
  for (const map of maps) {
    const mark = $(".c", map);
    if (mark) mark.tabIndex = 0;
    map.addEventListener("keydown", move);
  }
  for (const name of ["mouseover", "focusin"]) document.addEventListener(name, point);
  document.addEventListener("click", jump);
  addEventListener("hashchange", read);
  addEventListener("resize", widen);
  read();
  document.documentElement.dataset.ready = "yes";
})();
