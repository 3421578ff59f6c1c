// What a report page holds: its volumes, how they are shown, and the state of the page.
// Voxels are those of the result's file; where a picture shows them follows from NiiVue's own axes (permRAS).

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("page-data").textContent);
const unit = data.unit ? ` ${data.unit}` : "";
const GAP = 8; // px between planes
const PLANES = {
  axial: { type: 0, across: 0, up: 1, through: 2, letters: ["R", "L", "A", "P"] },
  coronal: { type: 1, across: 0, up: 2, through: 1, letters: ["R", "L", "S", "I"] },
  sagittal: { type: 2, across: 1, up: 2, through: 0, letters: ["A", "P", "S", "I"] },
};
const CURSOR_NAMES = ["Left–right", "Back–front", "Down–up"];
const ARROWS = { ArrowLeft: ["across", 1], ArrowRight: ["across", -1], ArrowUp: ["up", 1], ArrowDown: ["up", -1],
  PageUp: ["through", 1], PageDown: ["through", -1] };
const VIEWS = { side: "Side by side", swipe: "Swipe", std: "Standard deviation", error: "Error", filled: "Filled in" };
const images = {}; // NVImage by name
const state = { view: "side", left: "input", plane: "axial", planes: "all", swipe: 40, // beside the cursor, not under it
  voxel: data.shape.map((n) => n >> 1), window: [...data.window], limits: {} };
let panes = [];
let sizes, counts, axes; // of NiiVue's RAS axes: mm, voxels, and [file axis, turned round]
let pending = null;

const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// The reverse of `packed` in interslice/report/page/volumes.py: a NIfTI file of int16.
async function unpack(name) {
  const { header, axes: along } = data.volumes[name];
  const element = byId(`volume-${name}`);
  const gunzip = new Blob([bytesOf(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const content = new Uint8Array(await new Response(gunzip).arrayBuffer());
  element.remove();
  const head = bytesOf(header);
  const count = content.length / 2;
  const file = new ArrayBuffer(head.length + 2 * count);
  new Uint8Array(file).set(head);
  const q = new Int16Array(file, head.length);
  for (let i = 0; i < count; i++) {
    const folded = content[i] | (content[i + count] << 8);
    q[i] = (folded >>> 1) ^ -(folded & 1);
  }
  for (const axis of along) {
    const stride = data.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const period = stride * data.shape[axis];
    for (let i = 0; i < count; i++) if (i % period >= stride) q[i] += q[i - stride];
  }
  return niivue.NVImage.new(file, `${name}.nii`, "gray");
}

function errorImage() {
  const image = images.result.clone();
  const truth = images.truth.img;
  for (let i = 0; i < image.img.length; i++) {
    image.img[i] = Math.max(-32767, Math.min(32767, image.img[i] - truth[i]));
  }
  image.name = "error";
  image.hdr.scl_inter = 0;
  return image;
}

function registerColours(nv) {
  for (const [name, table] of Object.entries(data.colours)) {
    const column = (c) => table.map((rgb) => rgb[c]);
    nv.addColormap(name, { R: column(0), G: column(1), B: column(2), A: table.map(() => 255), I: table.map((_, i) => i) });
  }
}

const colours = (name) => ({ grey: "gray", spread: "inferno", signed: "signed" })[data.volumes[name].kind];

function rangeOf(name) {
  const kind = data.volumes[name].kind;
  if (kind === "grey") return state.window;
  return [kind === "signed" ? -state.limits[name] : 0, state.limits[name]];
}

function style(name) {
  const volume = data.volumes[name];
  volume.limit ??= (data.window[1] - data.window[0]) / 4;
  state.limits[name] ??= Number(volume.limit.toPrecision(2));
  images[name]._colormap = colours(name);
  images[name].opacity = 1;
  [images[name].cal_min, images[name].cal_max] = rangeOf(name);
}

function valueAt(name) {
  const [i, j, k] = state.voxel;
  const { step, offset, decimals } = data.volumes[name];
  const value = images[name].img[i + data.shape[0] * (j + data.shape[1] * k)] * step + offset;
  return value.toFixed(decimals).replace(/^-(0(\.0+)?)$/, "$1");
}
