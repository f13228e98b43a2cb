// The page: one chosen task for all figures that show one, drawing again where the width changes, printing, saving.
const DRAW = { forest: drawForest, curves: drawCurves, circuit: drawCircuit, specifications: drawSpecifications, distributions: drawDistributions };
const PRINTED = 680;
const places = [...document.querySelectorAll(".drawing")].map((place) => ({ place, data: JSON.parse(document.getElementById(`${place.id}-data`).textContent) }));
let task = 0, printing = false;

function draw({ place, data }) {
  const width = printing ? PRINTED : place.clientWidth;
  if (!width) return;
  DRAW[place.dataset.kind](place, data, width, task);
  place.dataset.drawn = "yes";
  place.dataset.width = width;
}

const drawAll = () => places.forEach(draw);

// A row of tabs over every figure that shows one task; all show the same one.
function tabs(holder, names) {
  const all = names.map((name, i) => {
    const tab = html(holder, "button", { type: "button", role: "tab", "aria-controls": holder.dataset.figure }, name);
    tab.addEventListener("click", () => choose(i));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: names.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose((to + names.length) % names.length);
      holder.children[task].focus();
    });
    return tab;
  });
  return all;
}

const rows = [...document.querySelectorAll("[role=tablist]")].map((holder) => tabs(holder, JSON.parse(holder.dataset.names)));

function choose(number) {
  task = number;
  for (const row of rows)
    row.forEach((tab, i) => {
      tab.setAttribute("aria-selected", i === task);
      tab.tabIndex = i === task ? 0 : -1;
    });
  drawAll();
}

function save(name, type, text) {
  const link = html(document.body, "a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The figure as a file of its own, in ink on white.
function saveFigure(place) {
  const copy = place.querySelector("svg[role=img]").cloneNode(true);
  copy.setAttribute("color", "#1b1f24");
  copy.setAttribute("style", "background:#fff;--paper:#fff");
  save(`${place.id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(copy));
}

for (const button of document.querySelectorAll("[data-save]"))
  button.addEventListener("click", () => {
    const from = document.getElementById(button.dataset.save);
    if (from.classList.contains("drawing")) saveFigure(from);
    else save(button.dataset.name, "text/plain", from.textContent.trim() + "\n");
  });

// A link to a folded part opens it.
function unfold() {
  const aim = location.hash && document.getElementById(location.hash.slice(1));
  if (aim?.tagName === "DETAILS") aim.open = true;
}
addEventListener("hashchange", unfold);
unfold();

for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", drawAll);

new ResizeObserver(() => {
  if (!printing) for (const one of places) if (one.place.clientWidth && +one.place.dataset.width !== one.place.clientWidth) draw(one);
}).observe(document.querySelector("main"));

const opened = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    opened.push(details);
    details.open = true;
  }
  printing = true;
  drawAll();
});
addEventListener("afterprint", () => {
  printing = false;
  for (const details of opened.splice(0)) details.open = false;
  drawAll();
});
choose(0);
