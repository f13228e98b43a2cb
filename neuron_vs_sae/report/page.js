"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const small = matchMedia(`(max-width: ${document.body.dataset.narrow}px)`);
  const bar = small.matches ? { displayModeBar: false } : {};
  const settings = { ...bar, responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  const places = [...document.querySelectorAll(".drawing")];

  // How a figure looks on this page, as it is now: panels side by side or stacked, in the page's colours.
  function look(meta) {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    const clear = "rgba(0,0,0,0)";
    return { ...(small.matches ? meta.narrow : meta.wide), "font.color": ink, paper_bgcolor: clear, plot_bgcolor: clear };
  }

  // What relayout does with `a.b[0].c`, before there is a plot.
  function put(layout, changes) {
    for (const [path, value] of Object.entries(changes)) {
      const steps = path.split(/[.[\]]+/).filter(Boolean);
      const last = steps.pop();
      steps.reduce((part, step) => (part[step] ??= {}), layout)[last] = value;
    }
    return layout;
  }

  function offer(place, meta) {
    const label = document.createElement("label");
    label.className = "choice";
    label.append("Method ");
    const select = document.createElement("select");
    for (const method of meta.methods) select.add(new Option(method, method));
    select.addEventListener("change", () => {
      Plotly.restyle(place, { visible: place.data.map((trace) => !trace.meta || trace.meta.method === select.value) });
    });
    label.append(select);
    place.before(label);
  }

  async function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "begun";
    const figure = JSON.parse(document.getElementById(`${place.id}-data`).textContent);
    await Plotly.newPlot(place, figure.data, put(figure.layout, look(figure.layout.meta)), settings);
    if (figure.layout.meta.methods) offer(place, figure.layout.meta);
    place.dataset.drawn = "yes";
  }

  function again() {
    for (const place of places) if (place.dataset.drawn === "yes") Plotly.relayout(place, look(place.layout.meta));
  }

  const open = (place) => !place.closest("details:not([open])");
  const drawOpen = () => Promise.all(places.filter(open).map(draw));
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", drawOpen);
  for (const query of [dark, small, matchMedia("print")]) query.addEventListener("change", again);
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    drawOpen();
  });
  drawOpen();
})();
