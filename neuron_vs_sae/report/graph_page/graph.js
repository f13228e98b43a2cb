// Graphs of one prompt, two bases side by side: layers by positions, a node per unit, edges where they are asked for.
const data = JSON.parse(document.getElementById("graphs").textContent);
const card = document.getElementById("card"), panels = document.getElementById("panels");
const state = { prompt: 0, left: 0, right: Math.min(1, data.bases.length - 1), held: 1, rest: true, chosen: null, group: null };
const [KIND, ROW, COLUMN, NAME, VALUE, TOTAL, HELD, GROUP] = [0, 1, 2, 3, 4, 5, 6, 7];
const MOST_EDGES = 60, LISTED = 12;

function choice(form, label, options, value, then) {
  const holder = html(form, "label", {}, `${label} `);
  const field = html(holder, "select");
  options.forEach((text, i) => { html(field, "option", { value: i }, text); });
  field.value = value;
  field.addEventListener("change", () => { then(+field.value); });
}

function controls() {
  const form = document.getElementById("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const change = (name) => (value) => { Object.assign(state, { [name]: value, chosen: null, group: null }); draw(); };
  choice(form, "prompt", data.prompts.map((prompt) => prompt.label), 0, change("prompt"));
  if (data.bases.length > 2) {
    choice(form, "left", data.bases.map((basis) => basis.label), state.left, change("left"));
    choice(form, "right", data.bases.map((basis) => basis.label), state.right, change("right"));
  }
  const slider = html(html(form, "label", {}, "influence shown "), "input", { type: "range", min: 0.05, max: 1, step: 0.01, value: 1, id: "held" });
  const says = html(slider.parentElement, "output", { for: "held" }, " all");
  slider.addEventListener("input", () => { state.held = +slider.value; says.textContent = state.held === 1 ? " all" : ` ${Math.round(100 * state.held)} %`; draw(); });
  const rest = html(html(form, "label"), "input", { type: "checkbox", id: "rest" });
  rest.checked = true;
  rest.parentElement.append(" what is left over");
  rest.addEventListener("change", () => { state.rest = rest.checked; draw(); });
}

const number = (value, digits = 3) => (value === null || value === undefined ? "not measured" : signed(value, digits));
const isShown = (node) => node[KIND] === "t" || node[KIND] === "o" || ((node[KIND] !== "r" || state.rest) && (state.held === 1 || node[HELD] <= state.held));

function draw() {
  const graphs = data.prompts[state.prompt].graphs;
  const bases = [...new Set([state.left, state.right])].map((i) => data.bases[i]).filter((basis) => graphs[basis.key]);
  panels.replaceChildren();
  // All are there before one is drawn: how wide each is depends on how many stand side by side.
  const holders = bases.map((basis) => html(panels, "section", { class: "panel", "aria-label": basis.label }));
  bases.forEach((basis, i) => panel(holders[i], basis, graphs[basis.key]));
  if (!state.chosen) card.replaceChildren();
}

function panel(holder, basis, graph) {
  const { scores } = graph;
  html(holder, "h2", {}, `${basis.label}: ${graph.units} units`);
  html(holder, "p", {}, `replacement ${number(scores.replacement)}, completeness ${number(scores.completeness)}, faithfulness ${number(scores.faithfulness)}; all ${graph.whole_units} units of the graph: ${number(graph.whole.replacement)}, ${number(graph.whole.completeness)}, ${number(graph.whole.faithfulness)}; rank correlation with exact effects ${number(graph.spearman)} (${number(graph.spearman_live)} with norms and attention live)`);
  if (graph.groups.length) groups(holder, basis, graph);
  const place = html(holder, "div", { class: "plot" });
  picture(place, basis, graph, holder.clientWidth);
}

function groups(holder, basis, graph) {
  const row = html(holder, "div", { class: "groups", role: "group", "aria-label": "supernodes" });
  graph.groups.forEach((label, i) => {
    if (!graph.nodes.some((node) => node[GROUP] === i)) return;
    const pressed = state.group?.basis === basis.key && state.group.number === i;
    const button = html(row, "button", { type: "button", "aria-pressed": pressed }, label || `group ${i}`);
    button.addEventListener("click", () => { state.group = pressed ? null : { basis: basis.key, number: i }; draw(); });
  });
}

// Where every node stands: rows from the tokens up, nodes of a cell in lines.
function layout(graph, width) {
  const gutter = 52, columns = graph.tokens.length, levels = graph.rows.length + 2;
  const each = Math.max((width - gutter) / columns, 26), side = 13, lines = Math.max(Math.floor((each - 2) / side), 1);
  const cells = new Map();
  graph.nodes.forEach((node, i) => {
    if (!isShown(node)) return;
    const key = `${node[ROW]},${node[COLUMN]}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(i);
  });
  const fullest = new Array(levels).fill(1);
  for (const [key, members] of cells) fullest[key.split(",")[0]] = Math.max(fullest[key.split(",")[0]], Math.ceil(members.length / lines));
  const heights = fullest.map((count) => count * side + 14), bottoms = [];
  const total = heights.reduce((a, b) => a + b, 0);
  let y = total;
  for (const height of heights) { bottoms.push(y); y -= height; }
  const at = new Map();
  for (const [key, members] of cells) {
    const [row, column] = key.split(",").map(Number);
    members.forEach((i, n) => {
      const inLine = Math.min(lines, members.length - Math.floor(n / lines) * lines);
      at.set(i, { x: gutter + (column + 0.5) * each + ((n % lines) - (inLine - 1) / 2) * side, y: bottoms[row] - 7 - (Math.floor(n / lines) + 0.5) * side });
    });
  }
  return { at, gutter, each, bottoms, heights, total, width: gutter + each * columns };
}

function picture(place, basis, graph, width) {
  const plan = layout(graph, width), foot = 64;
  const drawing = canvas(place, plan.width, plan.total + foot, `Graph in ${basis.label}`);
  drawing.setAttribute("role", "group");
  const labels = ["tokens", ...graph.rows, "target"];
  labels.forEach((label, row) => {
    svg(drawing, "line", { x1: plan.gutter, x2: plan.width, y1: plan.bottoms[row], y2: plan.bottoms[row], stroke: "currentColor", "stroke-opacity": 0.15 });
    svg(drawing, "text", { x: plan.gutter - 6, y: plan.bottoms[row] - plan.heights[row] / 2 + 4, "text-anchor": "end", "font-size": 11, "fill-opacity": 0.8 }, fitted(label, plan.gutter - 8, 11));
  });
  graph.tokens.forEach((token, column) => {
    const x = plan.gutter + (column + 0.5) * plan.each, y = plan.total + 12;
    svg(drawing, "text", { x, y, "text-anchor": "end", transform: `rotate(-45 ${x} ${y})`, "font-size": 11 }, fitted(token, 76, 11));
  });
  const lines = svg(drawing, "g"), chosen = state.chosen?.basis === basis.key ? state.chosen.node : null;
  edges(lines, graph, plan, chosen, basis);
  const near = chosen === null ? null : new Set(graph.edges.filter(([s, t]) => s === chosen || t === chosen).flatMap(([s, t]) => [s, t]));
  const marks = [...plan.at].map(([i, spot]) => mark(drawing, basis, graph, i, spot, chosen, near));
  roving(marks, chosen === null ? 0 : [...plan.at.keys()].indexOf(chosen));
}

function edges(lines, graph, plan, chosen, basis) {
  const shown = graph.edges.filter(([s, t]) => plan.at.has(s) && plan.at.has(t) && (chosen === null || s === chosen || t === chosen)).slice(0, chosen === null ? MOST_EDGES : Infinity);
  const largest = Math.max(...shown.map(([, , weight]) => Math.abs(weight)), 1e-9);
  for (const [s, t, weight] of shown) {
    const from = plan.at.get(s), to = plan.at.get(t), share = Math.abs(weight) / largest;
    svg(lines, "path", {
      d: `M${from.x},${from.y}C${from.x},${(from.y + to.y) / 2} ${to.x},${(from.y + to.y) / 2} ${to.x},${to.y}`, fill: "none",
      stroke: chosen === null ? "currentColor" : t === chosen ? "var(--accent)" : "var(--warn)", "stroke-width": 0.5 + 3 * share, class: "edge",
      "stroke-opacity": chosen === null ? 0.1 + 0.35 * share : 0.3 + 0.6 * share, "stroke-dasharray": weight < 0 ? "4 3" : "none",
    });
  }
}

function mark(drawing, basis, graph, i, { x, y }, chosen, near) {
  const node = graph.nodes[i], kind = node[KIND];
  const inGroup = state.group?.basis === basis.key ? node[GROUP] === state.group.number : true;
  const about = { class: `mark${(near && !near.has(i)) || !inGroup ? " dim" : ""}${i === chosen ? " chosen" : ""}`, role: "button", tabindex: -1, "data-node": i, "aria-label": name(node, graph) };
  const size = kind === "u" ? 2.5 + 3.5 * Math.sqrt(Math.min(1, Math.abs(node[TOTAL]) / largestTotal(graph))) : 5;
  const shape = kind === "u"
    ? svg(drawing, "circle", { cx: x, cy: y, r: size, fill: node[TOTAL] < 0 ? "var(--paper)" : basis.colour, stroke: basis.colour, "stroke-width": 1.5, ...about })
    : svg(drawing, "rect", { x: x - 5, y: y - 5, width: 10, height: 10, fill: kind === "r" ? "var(--paper)" : "currentColor", "fill-opacity": kind === "r" ? 1 : 0.75, stroke: kind === "r" ? basis.colour : "none", "stroke-dasharray": kind === "r" ? "2 2" : "none", ...about });
  const choose = () => { state.chosen = { basis: basis.key, node: i }; draw(); tell(basis, graph, i); panels.querySelector(".mark.chosen")?.focus(); };
  shape.addEventListener("click", choose);
  shape.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
  svg(shape, "title", {}, name(node, graph));
  return shape;
}

const largestTotal = (graph) => (graph.largest ??= Math.max(...graph.nodes.map((node) => Math.abs(node[TOTAL] ?? 0)), 1e-9));

function name(node, graph) {
  const where = `at ${graph.tokens[node[COLUMN]]} (position ${node[COLUMN]})`;
  if (node[KIND] === "u") return `${node[NAME]} ${where}`;
  if (node[KIND] === "r") return `left over ${where}: ${node[NAME]}`;
  return node[KIND] === "t" ? `token ${node[NAME]} (position ${node[COLUMN]})` : `target ${node[NAME]}`;
}

function tell(basis, graph, i) {
  const node = graph.nodes[i], said = data.cards[basis.key]?.[node[NAME]];
  card.replaceChildren();
  html(card, "h4", {}, `${basis.label}: ${name(node, graph)}`);
  const list = html(card, "dl");
  const fact = (term, text, attributes = {}) => { html(list, "dt", {}, term); html(list, "dd", attributes, text); };
  if (node[VALUE] !== null) fact("value", number(node[VALUE]));
  if (node[TOTAL] !== null) fact("adds to the target, over all paths", number(node[TOTAL]));
  if (node[KIND] !== "o") fact("with all above it, share of influence", `${Math.round(100 * node[HELD])} %`);
  if (node[GROUP] !== null) fact("supernode", graph.groups[node[GROUP]] || `group ${node[GROUP]}`);
  if (said) {
    const [up, down] = node[VALUE] < 0 ? [said.down, said.up] : [said.up, said.down];
    fact("at this value promotes", up.join(" · "), { class: "tokens" });
    fact("suppresses", down.join(" · "), { class: "tokens" });
    said.windows.forEach((window) => heat(window));
  }
  const flows = html(card, "div", { class: "flows" });
  listed(flows, "flows in from", graph.edges.filter(([, t]) => t === i).map(([s, , weight]) => [s, weight]), basis, graph);
  listed(flows, "flows out to", graph.edges.filter(([s]) => s === i).map(([, t, weight]) => [t, weight]), basis, graph);
}

function heat(window) {
  const largest = Math.max(...window.map(([, value]) => Math.abs(value ?? 0)), 1e-9), line = html(card, "p", { class: "heat" });
  for (const [token, value] of window) {
    const colour = value < 0 ? "213 94 0" : "0 114 178";
    html(line, "span", { style: `background: rgb(${colour} / ${(0.55 * Math.abs(value ?? 0)) / largest})`, title: number(value) }, token);
    line.append(" ");
  }
}

function listed(flows, heading, ends, basis, graph) {
  const part = html(flows, "div");
  html(part, "b", {}, `${heading} (${ends.length})`);
  const list = html(part, "ol");
  ends.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  for (const [other, weight] of ends.slice(0, LISTED)) {
    const button = html(html(list, "li"), "button", { type: "button" }, `${number(weight)} ${name(graph.nodes[other], graph)}`);
    button.addEventListener("click", () => { state.chosen = { basis: basis.key, node: other }; draw(); tell(basis, graph, other); });
  }
}

// One stop for the tab key in each picture; arrow keys go from node to node.
function roving(stops, first) {
  stops[Math.max(first, 0)]?.setAttribute("tabindex", 0);
  stops.forEach((stop, i) => stop.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, ArrowUp: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = stops[(i + step + stops.length) % stops.length];
    stop.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  }));
}

controls();
draw();
let width = panels.clientWidth;
addEventListener("resize", () => { if (panels.clientWidth !== width) { width = panels.clientWidth; draw(); } });
