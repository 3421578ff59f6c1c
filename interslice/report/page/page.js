// What a reader does on a report page: clicks, keys, tabs, sliders and numbers; and the beginning of it all.

// Set the voxel of NiiVue's axis `ras`, counted from its left, back or lower end.
function place(ras, index) {
  const [axis, turned] = axes[ras];
  const inside = Math.max(0, Math.min(data.shape[axis] - 1, index));
  state.voxel[axis] = turned ? data.shape[axis] - 1 - inside : inside;
}
const placed = (ras) => Math.round(fractions()[ras] * counts[ras] - 0.5);

function point(pane, event) {
  const box = pane.screen.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

const tileAt = (pane, [x, y]) => pane.tiles.find((t) => x >= t.x && x <= t.x + t.w && y >= t.y && y <= t.y + t.h);

function press(pane, event) {
  const at = point(pane, event);
  const tile = tileAt(pane, at);
  if (!tile || event.button > 0) return;
  const swiping = state.view === "swipe" && Math.abs(at[0] - cutAt(tile)) < 14;
  const move = (e) => {
    const [x, y] = point(pane, e);
    const [u, v] = [(x - tile.x) / tile.w, (y - tile.y) / tile.h].map((n) => Math.max(0, Math.min(1 - 1e-9, n)));
    if (swiping) {
      setSwipe(100 * u);
      return;
    }
    const { across: a, up } = PLANES[tile.plane];
    place(a, Math.floor((1 - u) * counts[a]));
    place(up, Math.floor((1 - v) * counts[up]));
    later(draw);
  };
  if (!swiping) state.plane = tile.plane;
  pane.canvas.focus({ preventScroll: true });
  move(event);
  pane.screen.setPointerCapture(event.pointerId);
  pane.screen.addEventListener("pointermove", move);
  const stop = () => pane.screen.removeEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"]) pane.screen.addEventListener(end, stop, { once: true });
}

// The wheel turns slices where a picture has the focus, so that a page can be scrolled past it.
function turn(pane, event) {
  const tile = tileAt(pane, point(pane, event));
  if (!tile || document.activeElement !== pane.canvas || event.ctrlKey) return;
  event.preventDefault();
  const { through } = PLANES[tile.plane];
  place(through, placed(through) - Math.sign(event.deltaY));
  later(draw);
}

function key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Home") {
    state.voxel = data.shape.map((n) => n >> 1);
  } else if (event.key in ARROWS) {
    const [role, sign] = ARROWS[event.key];
    const ras = PLANES[state.planes === "all" ? state.plane : state.planes][role];
    place(ras, placed(ras) + sign * (event.shiftKey ? 10 : 1));
  } else {
    return;
  }
  event.preventDefault();
  later(draw);
}

function setSwipe(percent) {
  state.swipe = percent;
  byId("swipe").value = percent;
  byId("swipe").setAttribute("aria-valuetext", `${Math.round(percent)} percent of each plane show ${data.labels[state.left]}`);
  overlay(panes[1]);
  clip();
}

function makeTabs() {
  const list = byId("tabs");
  const names = Object.keys(VIEWS).filter((v) => v in images || ["side", "swipe"].includes(v));
  const choose = (view, focus) => {
    state.view = view;
    for (const tab of list.children) {
      const chosen = tab.id === `tab-${view}`;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen && focus) tab.focus();
    }
    byId("stage").setAttribute("aria-labelledby", `tab-${view}`);
    if (isMap()) state.left = "result";
    show();
    setSwipe(state.swipe);
  };
  for (const view of names) {
    const tab = Object.assign(document.createElement("button"), { type: "button", id: `tab-${view}`, textContent: VIEWS[view] });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "stage");
    tab.setAttribute("aria-selected", view === state.view);
    tab.tabIndex = view === state.view ? 0 : -1;
    tab.addEventListener("click", () => choose(view, false));
    list.append(tab);
  }
  list.addEventListener("keydown", (event) => {
    const at = names.indexOf(state.view);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + names.length, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(names[to % names.length], true);
  });
}

// A slider and a number that are one setting.
function control(box, id, label, min, max, step, set) {
  const row = document.createElement("div");
  row.className = "control";
  row.innerHTML = `<label for="${id}">${label}</label><input type="range" id="${id}" min="${min}" max="${max}" step="${step}">` +
    `<input type="number" id="${id}-number" step="${step}" aria-label="${label}, as a number">`;
  const [slider, number] = row.querySelectorAll("input");
  slider.addEventListener("input", () => set(Number(slider.value)));
  let last;
  const write = (value) => {
    last = value;
    slider.value = value;
    number.value = Number(value.toPrecision(6));
  };
  number.addEventListener("change", () => (number.value === "" ? write(last) : set(Number(number.value))));
  box.append(row);
  return write;
}

let refresh;

function makeControls() {
  const step = data.volumes.result.step;
  const [low, high] = [Math.min(data.range[0], data.window[0]), Math.max(data.range[1], data.window[1])];
  const [middle, span] = [([a, b]) => (a + b) / 2, ([a, b]) => b - a];
  const box = byId("window");
  const centre = control(box, "centre", "Centre", low, high, step, (v) => setWindow(v, span(state.window)));
  const width = control(box, "width", "Width", step, 2 * (high - low), step, (v) => setWindow(middle(state.window), v));
  refresh = () => {
    centre(middle(state.window));
    width(span(state.window));
  };
  refresh();
  byId("reset").addEventListener("click", () => setWindow(middle(data.window), span(data.window)));
  CURSOR_NAMES.forEach((name, ras) => {
    const row = document.createElement("div");
    row.className = "control";
    row.style.gridTemplateColumns = "6rem minmax(0, 1fr)";
    row.innerHTML = `<label for="cursor-${ras}">${name}</label>` +
      `<input type="range" id="cursor-${ras}" min="0" max="${counts[ras] - 1}" step="1">`;
    row.querySelector("input").addEventListener("input", (event) => {
      place(ras, Number(event.target.value));
      later(draw);
    });
    byId("cursor").append(row);
  });
  byId("left").addEventListener("change", () => { state.left = byId("left").value; show(); });
  byId("planes").addEventListener("change", () => {
    state.planes = byId("planes").value;
    if (state.planes !== "all") state.plane = state.planes;
    show();
  });
  byId("smooth").addEventListener("change", show);
  byId("swipe").addEventListener("input", () => setSwipe(Number(byId("swipe").value)));
  setSwipe(state.swipe);
}

function mapControls(name) {
  byId("limit").replaceChildren();
  const { step, limit, kind } = data.volumes[name];
  const top = control(byId("limit"), "map-limit", kind === "signed" ? "Up to ±" : "Up to", step, 4 * limit, step, (v) => {
    state.limits[name] = Math.max(step, v);
    top(state.limits[name]);
    put(panes[1], name);
    later(draw);
  });
  top(state.limits[name]);
}

function setWindow(centre, width) {
  const half = Math.max(width, data.volumes.result.step) / 2;
  state.window = [centre - half, centre + half];
  refresh();
  for (const pane of panes) if (data.volumes[pane.name].kind === "grey") put(pane, pane.name);
  later(draw);
}

const INSTEAD = "The middle slices are shown instead; metrics and settings are below.";

function fail(words) {
  byId("no-viewer").textContent = words;
  byId("no-viewer").hidden = false;
  byId("viewer").hidden = true;
  byId("static").hidden = false;
  document.documentElement.dataset.viewer = "none";
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) {
    fail(`The viewer needs WebGL 2, which this browser does not have or has switched off. ${INSTEAD}`);
    return;
  }
  byId("viewer").hidden = false;
  panes = await Promise.all(["pane-a", "pane-b"].map(makePane));
  registerColours(panes[0].nv);
  for (const name of Object.keys(data.volumes)) {
    images[name] = name === "error" ? errorImage() : await unpack(name);
    style(name);
  }
  const result = images.result;
  axes = result.permRAS.map((p) => [Math.abs(p) - 1, p < 0]);
  counts = result.dimsRAS.slice(1, 4);
  sizes = counts.map((n, axis) => n * result.pixDimsRAS[axis + 1]);
  makeTabs();
  makeControls();
  byId("static").hidden = true;
  show();
  new ResizeObserver(() => later(layout)).observe(byId("stage"));
  document.documentElement.dataset.viewer = "ready";
}

start().catch((error) => {
  console.error(error);
  fail(`The viewer could not start (${error.message}). ${INSTEAD}`);
});
