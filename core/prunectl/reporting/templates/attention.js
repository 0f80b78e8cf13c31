"use strict";
// Two views of each model, drawn by bertviz from the same numbers; what is ours are the marks on heads that went.
const pages = JSON.parse(document.getElementById("data").textContent);
const SIDES = ["before", "after"];

function panel(id, side) {
  const box = document.createElement("div");
  box.className = "view";
  box.innerHTML = '<h3></h3><div><label>Layer: <select id="layer"></select></label><div id="vis"></div></div>';
  box.querySelector("h3").textContent = side;
  box.lastChild.id = id;
  return box;
}

// What both views take. A head that went has weights of 0, so that each keeps its original number.
function parameters(part, side, id) {
  const found = part[side];
  return {
    attention: [{ name: null, attn: found.weights, left_text: part[side + "_tokens"].queries, right_text: part[side + "_tokens"].keys }],
    default_filter: "0", root_div_id: id, layer: null, heads: null, display_mode: "light",
    include_layers: part.layers, include_heads: [...Array(part.heads).keys()], total_heads: Math.max(part.heads, 12),
  };
}

function draw(place, part, run, mark) {
  const target = document.getElementById(place);
  target.replaceChildren();
  for (const side of SIDES) {
    const id = place + "-" + side;
    target.append(panel(id, side));
    run(parameters(part, side, id));
    const vis = document.querySelector("#" + id + " #vis");
    const again = () => mark(vis, part, side, id);
    // Each change of layer draws anew.
    new MutationObserver(again).observe(vis, { childList: true });
    again();
  }
}

function cross(svg, x, y, width, height, title) {
  const group = d3.select(svg).append("g").attr("class", "gone");
  group.append("title").text(title);
  group.append("rect").attr("class", "hatch").attr("stroke", "none").attr("x", x).attr("y", y).attr("width", width).attr("height", height);
  group.append("path").attr("d", `M${x + 4} ${y + 4}L${x + width - 4} ${y + height - 4}M${x + width - 4} ${y + 4}L${x + 4} ${y + height - 4}`);
}

function markHeads(vis, part, side, id) {
  const svg = vis.querySelector("svg");
  if (!svg || svg.querySelector(".gone")) return;
  const row = part.layers.indexOf(+document.querySelector("#" + id + " #layer").value);
  const boxes = svg.lastElementChild.querySelectorAll("rect");
  part[side].gone[row].forEach((gone, head) => {
    if (gone) cross(svg, +boxes[head].getAttribute("x"), +boxes[head].getAttribute("y"), 20, 20, `head ${head} went`);
  });
}

function markModel(vis, part, side) {
  const svg = vis.querySelector("svg");
  if (!svg || svg.querySelector(".gone")) return;
  part[side].gone.forEach((heads, row) => heads.forEach((gone, head) => {
    const box = svg.querySelector(`#attn_background_${row}_${head}`);
    if (gone && box) cross(svg, ...["x", "y", "width", "height"].map((name) => +box.getAttribute(name)), `layer ${part.layers[row]}, head ${head} went`);
  }));
}

function drawHeads(part) { draw("heads", part, headView, markHeads); }
function drawModel(part) {
  draw("model", part, modelView, markModel);
  document.querySelectorAll("#model label").forEach((label) => label.remove());
}

const drawers = { heads: drawHeads, model: drawModel };
document.querySelectorAll("[role=tablist]").forEach((list) => list.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-part]");
  if (!chosen) return;
  list.querySelectorAll("button").forEach((button) => button.setAttribute("aria-selected", String(button === chosen)));
  drawers[list.dataset.for](pages[+chosen.dataset.part]);
}));
for (const run of Object.values(drawers)) run(pages[0]);
