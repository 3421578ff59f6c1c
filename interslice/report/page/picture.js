// The pictures of a report page: where planes go, what is drawn over them, and the swipe.

async function makePane(id) {
  const figure = byId(id);
  const pane = { figure, screen: figure.querySelector(".screen"), canvas: figure.querySelector("canvas"),
    svg: figure.querySelector("svg"), title: figure.querySelector("figcaption"), scale: figure.querySelector(".scale"),
    tiles: [] };
  pane.nv = new niivue.Niivue({ interactive: false, isResizeCanvas: false, logLevel: "error", crosshairWidth: 0,
    isRadiologicalConvention: true, sagittalNoseLeft: true, isOrientationTextVisible: false, backColor: [0, 0, 0, 1] });
  await pane.nv.attachToCanvas(pane.canvas, false);
  pane.screen.style.backgroundColor = ""; // NiiVue makes it black, which would hide what lies below in a swipe
  pane.screen.addEventListener("pointerdown", (event) => press(pane, event));
  pane.screen.addEventListener("wheel", (event) => turn(pane, event), { passive: false });
  pane.canvas.addEventListener("keydown", key);
  pane.canvas.addEventListener("webglcontextlost", () => fail("The browser has taken the memory of the pictures back. Load the page again."));
  return pane;
}

const isMap = () => !["side", "swipe"].includes(state.view);

function show() {
  const names = Object.keys(images).filter((n) => data.volumes[n].kind === "grey" && (isMap() || n !== "result"));
  if (!names.includes(state.left)) state.left = isMap() ? "result" : "input";
  byId("left").replaceChildren(...names.map((n) => new Option(data.labels[n], n, false, n === state.left)));
  byId("stage").classList.toggle("swipe", state.view === "swipe");
  byId("swipe-bar").hidden = state.view !== "swipe";
  byId("map-scale").hidden = !isMap();
  if (isMap()) mapControls(state.view);
  panes[0].canvas.tabIndex = state.view === "swipe" ? -1 : 0;
  put(panes[0], state.left);
  put(panes[1], isMap() ? state.view : "result");
  layout();
}

function put(pane, name) {
  pane.name = name;
  pane.title.replaceChildren(Object.assign(document.createElement("span"), { textContent: data.labels[name] }));
  if (state.view === "swipe") {
    pane.title.firstChild.textContent = `◀ ${data.labels[name]}`;
    pane.title.append(Object.assign(document.createElement("span"), { textContent: `${data.labels.result} ▶` }));
  }
  const both = state.view === "swipe" ? `${data.labels[state.left]} and ${data.labels.result}` : data.labels[name];
  pane.canvas.setAttribute("aria-label", `${both}: ${state.planes === "all" ? "three planes" : `${state.planes} plane`}`);
  style(name);
  pane.nv.volumes = [images[name]];
  pane.nv.overlays = [];
  pane.nv.back = images[name];
  pane.nv.opts.isNearestInterpolation = !byId("smooth").checked;
  pane.nv.updateGLVolume();
  drawScale(pane);
}

// Where the planes go: the plan of the largest scale; of those alike, the lowest one.
function arrangement(width, height) {
  const [x, y, z] = sizes;
  const plane = { axial: [x, y], coronal: [x, z], sagittal: [y, z] };
  if (state.planes !== "all") {
    const [w, h] = plane[state.planes];
    const scale = Math.min(width / w, height / h);
    return { scale, boxes: { [state.planes]: [0, 0, w * scale, h * scale] } };
  }
  const plans = [
    { w: 2 * x + y, h: Math.max(y, z), gaps: [2, 0], at: { axial: [0, 0], coronal: [x, 0, 1, 0], sagittal: [2 * x, 0, 2, 0] } },
    { w: x + Math.max(x, y), h: Math.max(y, 2 * z), gaps: [1, 1], at: { axial: [0, 0], coronal: [x, 0, 1, 0], sagittal: [x, z, 1, 1] } },
    { w: x + y, h: y + z, gaps: [1, 1], at: { coronal: [0, 0], sagittal: [x, 0, 1, 0], axial: [0, z, 0, 1] } },
    { w: Math.max(x, y), h: y + 2 * z, gaps: [0, 2], at: { axial: [0, 0], coronal: [0, y, 0, 1], sagittal: [0, y + z, 0, 2] } },
  ];
  for (const plan of plans) {
    plan.scale = Math.min((width - GAP * plan.gaps[0]) / plan.w, (height - GAP * plan.gaps[1]) / plan.h);
  }
  const largest = Math.max(...plans.map((plan) => plan.scale));
  const { scale, at } = plans.filter((plan) => plan.scale > 0.97 * largest).reduce((a, b) => (b.h < a.h ? b : a));
  const boxes = {};
  for (const [name, [left, top, gapsLeft = 0, gapsTop = 0]] of Object.entries(at)) {
    const [w, h] = plane[name];
    boxes[name] = [left * scale + gapsLeft * GAP, top * scale + gapsTop * GAP, w * scale, h * scale];
  }
  return { scale, boxes };
}

function layout() {
  const stacked = state.view !== "swipe" && getComputedStyle(byId("stage")).gridTemplateColumns.split(" ").length === 1;
  const height = Math.max(220, window.innerHeight * (stacked ? 0.45 : 0.6));
  const dpr = window.devicePixelRatio || 1;
  for (const pane of panes) {
    const { scale, boxes } = arrangement(pane.screen.clientWidth, height);
    const wide = Math.max(...Object.values(boxes).map((b) => b[0] + b[2]));
    const high = Math.max(...Object.values(boxes).map((b) => b[1] + b[3]));
    Object.assign(pane.canvas.style, { width: `${wide}px`, height: `${high}px` });
    pane.canvas.width = Math.round(wide * dpr);
    pane.canvas.height = Math.round(high * dpr);
    pane.scaleMM = scale;
    pane.nv.uiData.dpr = dpr;
    pane.nv.customLayout = Object.entries(boxes).map(([name, b]) => ({ sliceType: PLANES[name].type,
      position: [b[0] / wide, b[1] / high, b[2] / wide, b[3] / high] }));
  }
  draw();
}

function draw() {
  pending = null;
  for (const pane of panes) {
    pane.nv.scene.crosshairPos = fractions();
    pane.nv.drawScene();
    const dprX = pane.canvas.width / pane.canvas.clientWidth;
    const dprY = pane.canvas.height / pane.canvas.clientHeight;
    const left = pane.canvas.offsetLeft;
    pane.tiles = pane.nv.screenSlices.map(({ axCorSag, leftTopWidthHeight: [l, t, w, h] }) => ({
      plane: Object.keys(PLANES)[axCorSag], x: left + l / dprX, y: t / dprY, w: w / dprX, h: h / dprY }));
    overlay(pane);
  }
  clip();
  readout();
}

function later(what) {
  if (pending === layout) return;
  if (!pending) requestAnimationFrame(() => pending && pending());
  pending = what;
}

const fractions = () => axes.map(([axis, turned]) => {
  const f = (state.voxel[axis] + 0.5) / data.shape[axis];
  return turned ? 1 - f : f;
});

// Screen: right to left is towards the left, or the back; down is towards the feet, or the back.
const across = (tile, f) => tile.x + tile.w * (1 - f[PLANES[tile.plane].across]);
const down = (tile, f) => tile.y + tile.h * (1 - f[PLANES[tile.plane].up]);
const cutAt = (tile) => tile.x + (tile.w * state.swipe) / 100;

function clip() {
  const { canvas, tiles } = panes[1];
  const boxes = tiles.map((tile) => {
    const [cut, right] = [cutAt(tile), tile.x + tile.w].map((x) => x - canvas.offsetLeft);
    return `M${cut} ${tile.y}H${right}V${tile.y + tile.h}H${cut}Z`;
  });
  canvas.style.clipPath = state.view === "swipe" ? `path("${boxes.join("")}")` : "";
}

function overlay(pane) {
  const f = fractions();
  const line = (kind, x1, y1, x2, y2) => `<line class="${kind}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
  const text = (kind, x, y, anchor, words) => `<text class="${kind}" x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
  pane.svg.innerHTML = pane.tiles.map((tile) => {
    const { letters, through } = PLANES[tile.plane];
    const [cx, cy, gap] = [across(tile, f), down(tile, f), 7];
    const [right, bottom] = [tile.x + tile.w, tile.y + tile.h];
    const arms = [[tile.x, cy, Math.max(tile.x, cx - gap), cy], [Math.min(right, cx + gap), cy, right, cy],
      [cx, tile.y, cx, Math.max(tile.y, cy - gap)], [cx, Math.min(bottom, cy + gap), cx, bottom]];
    const parts = ["halo", "cross"].flatMap((kind) => arms.map((a) => line(kind, ...a)));
    const [midX, midY] = [tile.x + tile.w / 2, tile.y + tile.h / 2];
    parts.push(text("letter", tile.x + 5, midY - 6, "start", letters[0]), text("letter", right - 5, midY - 6, "end", letters[1]),
      text("letter", midX + 6, tile.y + 16, "start", letters[2]), text("letter", midX + 6, bottom - 6, "start", letters[3]));
    const chosen = tile.plane === state.plane ? "plane active" : "plane";
    const index = tile.w > 190 ? ` ${Math.round(f[through] * counts[through] + 0.5)}/${counts[through]}` : "";
    parts.push(text(chosen, tile.x + 6, tile.y + 16, "start", (tile.w > 120 ? tile.plane : tile.plane.slice(0, 3)) + index));
    if (tile === pane.tiles[0]) parts.push(scaleBar(pane, tile, bottom));
    if (state.view === "swipe") {
      const x = cutAt(tile);
      parts.push(line("cut", x, tile.y, x, bottom), `<circle class="grip" cx="${x}" cy="${bottom - 26}" r="12"/>`,
        `<path class="grip-arrow" d="M${x - 3} ${bottom - 31}l-5 5 5 5M${x + 3} ${bottom - 31}l5 5 -5 5"/>`);
    }
    return parts.join("");
  }).join("");
}

function scaleBar(pane, tile, bottom) {
  const mm = [100, 50, 20, 10, 5, 2, 1].find((n) => n * pane.scaleMM < tile.w / 3) ?? 0.5;
  const [x, y, length] = [tile.x + 8, bottom - 10, mm * pane.scaleMM];
  const lines = ["halo", "bar-mm"].map((kind) => `<line class="${kind}" x1="${x}" y1="${y}" x2="${x + length}" y2="${y}"/>`);
  return `${lines.join("")}<text class="plane" x="${x}" y="${y - 6}">${mm} mm</text>`;
}

function drawScale(pane) {
  const [low, high] = rangeOf(pane.name);
  const { decimals } = data.volumes[pane.name];
  const table = data.colours[colours(pane.name)];
  const stops = table ? table.filter((_, i) => i % 15 === 0).map((rgb) => `rgb(${rgb})`).join(",") : "#000,#fff";
  const bar = Object.assign(document.createElement("i"), { style: `background: linear-gradient(90deg, ${stops})` });
  pane.scale.replaceChildren(low.toFixed(decimals), bar, high.toFixed(decimals) + unit);
}

function readout() {
  const [i, j, k] = state.voxel;
  const mm = data.affine.slice(0, 3).map((row) => row[0] * i + row[1] * j + row[2] * k + row[3]);
  const side = (v, [plus, minus]) => `${Math.abs(v).toFixed(1)} ${v < 0 ? minus : plus}`;
  const places = mm.map((v, i) => side(v, ["RL", "AP", "SI"][i])).join(", ");
  const fill = (list, entries) => list.replaceChildren(...entries.flatMap(([term, words, id]) => [
    Object.assign(document.createElement("dt"), { textContent: term }),
    Object.assign(document.createElement("dd"), { textContent: words, id })]));
  fill(byId("where"), [["Position, mm", places, "position"], ["Voxel, from 0", state.voxel.join(", "), "voxel"]]);
  const values = Object.keys(images).map((n) => [data.labels[n], valueAt(n) + unit, `value-${n}`]);
  fill(byId("values"), values);
  state.voxel.forEach((v, axis) => {
    const ras = axes.findIndex(([a]) => a === axis);
    byId(`cursor-${ras}`).value = axes[ras][1] ? data.shape[axis] - 1 - v : v;
    byId(`cursor-${ras}`).setAttribute("aria-valuetext", side(mm[ras], ["RL", "AP", "SI"][ras]) + " mm");
  });
  clearTimeout(readout.timer);
  readout.timer = setTimeout(() => {
    byId("live").textContent = `Position ${places}. ${values.map(([label, value]) => `${label} ${value}`).join(", ")}.`;
  }, 600);
}
