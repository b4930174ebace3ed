"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const table = $("#layers"), body = $("tbody", table);
  const rows = $$("tr", body), heads = $$("thead th", table), keys = heads.map((th) => th.dataset.key);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = $("#filter"), sort = $("#sort"), direction = $("#direction"), count = $("#count");
  const facets = $$("[data-facet]"), widths = $$('input[name="map"]'), maps = $$(".map");
  const collator = new Intl.Collator("en", { numeric: true });
  const state = { sort: "n", dir: "asc", filter: "", map: "macs" };

  const number = (value) => {
    for (const [scale, prefix] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
      if (value >= scale) return (value / scale).toPrecision(3) + prefix;
    return String(value);
  };
  const cellsOf = (index) => {
    const at = keys.indexOf(state.sort);
    return rows[index].cells[at].textContent;
  };

  function order() {
    const values = data.values[state.sort], sign = state.dir === "desc" ? -1 : 1;
    const indices = rows.map((_, i) => i);
    if (values) {
      // What has no value comes last in either direction.
      indices.sort((a, b) => {
        const x = values[a], y = values[b];
        if (x === y) return a - b;
        if (x === null) return 1;
        if (y === null) return -1;
        return sign * (x - y);
      });
    } else {
      const words = rows.map((_, i) => cellsOf(i));
      indices.sort((a, b) => sign * collator.compare(words[a], words[b]) || a - b);
    }
    const fragment = document.createDocumentFragment();
    for (const i of indices) fragment.append(rows[i]);
    body.append(fragment);
  }

  function select() {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, macs = 0;
    const all = data.macs.reduce((sum, value) => sum + value, 0), kept = new Set();
    rows.forEach((row, i) => {
      let fits = words.every((word) => texts[i].includes(word));
      for (const facet of facets) {
        const { labels, of } = data.facets[facet.dataset.facet];
        if (facet.value && labels[of[i]] !== facet.value) fits = false;
      }
      row.hidden = !fits;
      if (fits) { shown += 1; macs += data.macs[i]; kept.add(row.id); }
    });
    const share = all ? `, ${number(macs)} MACs (${shown < rows.length ? (100 * macs / all).toFixed(1) : 100} %)` : "";
    count.textContent = `${shown} of ${rows.length} rows${share}`;
    const some = shown < rows.length;
    for (const cell of $$(".map .c")) cell.classList.toggle("dim", some && !kept.has(cell.hash.slice(1)));
  }

  function widen() {
    for (const map of maps) {
      map.classList.toggle("equal", state.map === "equal");
      const cells = $$(".c", map);
      // As many lines as give most cells room, so that a cell of the full width is 1/lines of all MACs.
      map.style.setProperty("--rows", String(Math.max(2, Math.min(12, Math.round(cells.length * 9 / map.clientWidth) + 2))));
      const sizes = cells.map((cell) => cell.clientWidth);
      cells.forEach((cell, i) => cell.classList.toggle("t", sizes[i] >= 20));
    }
  }

  function show() {
    filter.value = state.filter;
    sort.value = state.sort;
    direction.textContent = state.dir === "desc" ? "↓" : "↑";
    for (const facet of facets) facet.value = state[facet.dataset.facet] ?? "";
    for (const width of widths) width.checked = width.value === state.map;
    heads.forEach((th) => {
      if (th.dataset.key === state.sort) th.setAttribute("aria-sort", state.dir === "desc" ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    order(); select(); widen();
  }

  function read() {
    if (/^#l\d+$/.test(location.hash)) return;
    const given = new URLSearchParams(location.hash.slice(1));
    const wanted = given.get("sort");
    state.sort = keys.includes(wanted) ? wanted : "n";
    state.dir = given.get("dir") ?? first(state.sort);
    state.filter = given.get("filter") ?? "";
    state.map = given.get("map") === "equal" ? "equal" : "macs";
    for (const facet of facets) {
      const key = facet.dataset.facet, value = given.get(key);
      state[key] = data.facets[key].labels.includes(value) ? value : "";
    }
  }

  const first = (key) => (key !== "n" && data.values[key] ? "desc" : "asc");

  function keep() {
    const now = new URLSearchParams();
    if (state.sort !== "n") now.set("sort", state.sort);
    if (state.dir !== first(state.sort)) now.set("dir", state.dir);
    if (state.filter) now.set("filter", state.filter);
    for (const facet of facets) if (state[facet.dataset.facet]) now.set(facet.dataset.facet, state[facet.dataset.facet]);
    if (state.map !== "macs") now.set("map", state.map);
    history.replaceState(null, "", "#" + now);
  }

  function change(more) {
    Object.assign(state, more);
    keep();
    show();
  }

  function describe(row) {
    const cells = [...row.cells];
    const name = ($("summary, span", cells[1]) ?? cells[1]).textContent;
    const rest = cells.map((cell, i) => [heads[i].textContent, cell.textContent.trim()])
      .filter(([, words], i) => i > 1 && words)
      .map(([label, words], i) => (i < 1 ? words : `${label} ${words}`));
    return [name, ...rest].join(" · ");
  }

  const rowOf = (mark) => document.getElementById(mark.dataset.l ?? mark.hash.slice(1));

  function point(event) {
    const mark = event.target.closest(".map .c, .plot .m");
    if (!mark) return;
    const line = $(".status", mark.closest("section")), words = describe(rowOf(mark));
    line.textContent = words;
    if (mark.matches(".c")) mark.setAttribute("aria-label", words);
  }

  function jump(event) {
    const mark = event.target.closest(".map .c, .plot .m");
    if (!mark) return;
    event.preventDefault();
    const row = rowOf(mark);
    if (row.hidden) change({ filter: "", ...Object.fromEntries(facets.map((facet) => [facet.dataset.facet, ""])) });
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

  filter.addEventListener("input", () => change({ filter: filter.value }));
  sort.addEventListener("change", () => change({ sort: sort.value, dir: first(sort.value) }));
  direction.addEventListener("click", () => change({ dir: state.dir === "desc" ? "asc" : "desc" }));
  for (const facet of facets) facet.addEventListener("change", () => change({ [facet.dataset.facet]: facet.value }));
  for (const width of widths) width.addEventListener("change", () => change({ map: width.value }));
  $("#reset").addEventListener("click", () => { history.replaceState(null, "", "#"); read(); show(); });
  $(".controls").addEventListener("submit", (event) => event.preventDefault());
  heads.forEach((th) => $("button", th).addEventListener("click", () => {
    const key = th.dataset.key, turned = state.dir === "desc" ? "asc" : "desc";
    change({ sort: key, dir: key === state.sort ? turned : first(key) });
  }));
  for (const map of maps) {
    const cell = $(".c", map);
    if (cell) cell.tabIndex = 0;
    map.addEventListener("keydown", move);
  }
  for (const name of ["mouseover", "focusin"]) document.addEventListener(name, point);
  document.addEventListener("click", jump);
  addEventListener("hashchange", () => { read(); show(); });
  addEventListener("resize", widen);
  read();
  show();
  document.documentElement.dataset.ready = "yes";
})();
