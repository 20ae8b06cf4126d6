// Fills the list of versions, draws diagrams in the colours of the page, names the column of each cell of a table (for
// phones), and redirects from headings that have moved to another page.
const script = document.currentScript.src;

async function offerVersions(label) {
  const root = new URL(label.dataset.root || "./", location.href); // the root of this version of the site
  const [list, here] = [label.querySelector("select"), root.pathname.split("/").at(-2)];
  const versions = await (await fetch(new URL("../versions.json", root))).json();
  list.replaceChildren(...versions.map((name) => new Option(name, name, false, name === here)));
  list.addEventListener("change", () => location.assign(new URL(`../${list.value}/`, root)));
}

async function followMoved() {
  const anchor = decodeURIComponent(location.hash.slice(1));
  if (!anchor || document.getElementById(anchor)) return;
  const moved = await (await fetch(new URL("moved.json", script))).json();
  const page = moved[location.pathname.split("/").at(-2)]?.[anchor] ?? moved[""][anchor];
  if (page) location.replace(new URL(`../${page}/#${anchor}`, location.href));
}

function isDark() {
  const theme = document.body.dataset.theme;
  return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
}

async function draw(diagrams) {
  mermaid.initialize({ startOnLoad: false, theme: isDark() ? "dark" : "default" });
  for (const [place, text] of diagrams) {
    place.removeAttribute("data-processed");
    place.textContent = text;
  }
  await mermaid.run({ nodes: [...diagrams.keys()] });
}

function drawDiagrams() {
  const diagrams = new Map([...document.querySelectorAll("pre.mermaid")].map((place) => [place, place.textContent]));
  if (!diagrams.size) return;
  const library = Object.assign(document.createElement("script"), { src: new URL("mermaid.tiny.js", script) });
  library.addEventListener("load", () => {
    let drawn = draw(diagrams);
    let dark = isDark();
    const again = () => {
      if (dark === isDark()) return;
      dark = isDark();
      drawn = drawn.then(() => draw(diagrams));
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new MutationObserver(again).observe(document.body, { attributeFilter: ["data-theme"] });
  });
  document.head.append(library);
}

function nameColumns() {
  for (const table of document.querySelectorAll("table.docutils")) {
    const columns = [...table.querySelectorAll("thead th")].map((head) => head.innerText);
    table.classList.toggle("settings", columns.includes("environment variable"));
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, at) => (cell.dataset.column = columns[at] ?? ""));
    }
  }
}

addEventListener("DOMContentLoaded", () => {
  nameColumns();
  drawDiagrams();
  const label = document.querySelector(".versions");
  if (label) offerVersions(label).catch(() => {}); // pages that are opened from a disk can't fetch the list
  followMoved().catch(() => {});
});
