"use strict";
// The page's own part: files to the server, its state to the screen. Whatever comes from outside is set as text.
const $ = (id) => document.getElementById(id);
const PAUSE = 500;
const TASK_OF = [[/\.npz$/i, "ct"], [/\.(h5|hdf5)$/i, "kspace"]];
const WORDS = {
  uploading: "Sending the files to this machine's page", running: "Reconstructing", finished: "The result",
  failed: "It could not be reconstructed", cancelled: "Cancelled",
};
let chosen = null; // [{file, name}], [] for the embedded scan, null for nothing
let sending = null; // the request under way, while files are sent
let shown = ""; // what the report on screen is of

// ---- choosing

function inWords(bytes) {
  return bytes >= 0.95e9 ? `${(bytes / 1e9).toFixed(1)} GB` : bytes >= 0.95e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}

function choose(files) {
  chosen = files.filter(({ name }) => !name.split("/").some((part) => part.startsWith(".") || part === "__MACOSX"));
  chosen.sort((a, b) => (a.name < b.name ? -1 : 1));
  const size = chosen.reduce((sum, { file }) => sum + file.size, 0);
  const names = chosen.length > 3 ? `${chosen.length} files` : chosen.map(({ name }) => name).join(", ");
  $("chosen").textContent = chosen.length ? `${names}, ${inWords(size)}` : "There are no files in it.";
  if (!chosen.length) chosen = null;
  for (const [end, task] of TASK_OF) {
    if (chosen?.some(({ name }) => end.test(name))) document.querySelector(`[value=${task}]`).checked = true;
  }
  hint();
}

function hint() {
  const task = new FormData($("form")).get("task");
  const alone = chosen?.length === 1 && /\.npz$/i.test(chosen[0].name);
  $("hint").textContent =
    task === "ct" && alone ? "The geometry belongs to it: choose scan.npz and scan.json together." :
    task === "kspace" || task === "stacks" ? "There is no embedded scan of this kind." :
    "A DICOM series: its folder, or a zip archive of it.";
  $("sample").disabled = task === "kspace" || task === "stacks";
  if ($("sample").disabled && chosen?.length === 0) {
    chosen = null;
    $("chosen").textContent = "Nothing is chosen.";
  }
}

const listed = (input) => [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
for (const id of ["files", "folder"]) $(id).addEventListener("change", () => choose(listed($(id))));
$("sample").addEventListener("click", () => {
  chosen = [];
  $("chosen").textContent = "The scan that comes with the program";
});
$("form").addEventListener("change", hint);

async function inside(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    return [{ file, name: entry.fullPath.slice(1) }];
  }
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // a hundred at a time
    if (!some.length) break;
    for (const one of some) found.push(...(await inside(one)));
  }
  return found;
}

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser would leave the page for the file
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", async (event) => {
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  try {
    choose((await Promise.all(entries.map(inside))).flat());
  } catch (error) {
    $("chosen").textContent = `It cannot be read: ${error.message}`;
  }
});

// ---- sending

async function ask(path, about) {
  const answer = await fetch(path, about && { method: "POST", body: JSON.stringify(about) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function put(path, file, progress) {
  return new Promise((done, fail) => {
    sending = new XMLHttpRequest();
    sending.open("PUT", path);
    sending.upload.onprogress = (event) => progress(event.loaded);
    sending.onload = () => {
      if (sending.status === 200) return done();
      try {
        fail(new Error(JSON.parse(sending.responseText).error));
      } catch {
        fail(new Error(`the page's server answered ${sending.status}`));
      }
    };
    sending.onerror = () => fail(new Error("the file could not be read or sent: choose it again"));
    sending.onabort = () => fail(null);
    sending.send(file);
  });
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (chosen === null) {
    $("chosen").textContent = "Choose a scan first.";
    $("files").focus();
    return;
  }
  const files = chosen, total = files.reduce((sum, { file }) => sum + file.size, 0);
  const { task, preset } = Object.fromEntries(new FormData($("form")));
  try {
    begin();
    const asked = { task, preset, files: files.map(({ file, name }) => ({ name, size: file.size })) };
    const { number } = await ask("runs", asked);
    $("cancel").dataset.run = number;
    let sent = 0;
    for (const [i, { file }] of files.entries()) {
      await put(`runs/${number}/files/${i}`, file, (part) => bars([{ what: "sending", done: sent + part, total, left: "" }]));
      sent += file.size;
    }
    sending = null;
    await ask(`runs/${number}/start`, {});
    follow();
  } catch (error) {
    sending = null;
    if (error) trouble("It was not begun", [error.message]);
    else trouble("Cancelled", []);
  }
});

$("cancel").addEventListener("click", async () => {
  $("cancel").disabled = true;
  sending?.abort();
  try {
    await ask(`runs/${$("cancel").dataset.run}/cancel`, {});
  } catch (error) {
    trouble("It cannot be cancelled", [error.message]);
  }
});

// ---- showing

function begin() {
  $("status").hidden = $("working").hidden = false;
  for (const id of ["trouble", "results", "more", "same"]) $(id).hidden = true;
  $("go").disabled = true;
  $("cancel").disabled = false;
  $("h-status").textContent = WORDS.uploading;
  $("now").textContent = "";
  bars([]);
  $("status").scrollIntoView({ block: "nearest" });
}

function trouble(what, lines) {
  $("status").hidden = $("trouble").hidden = false;
  $("working").hidden = true;
  $("go").disabled = false;
  $("h-status").textContent = what;
  $("trouble-is").textContent = lines.length ? "" : "Nothing was written.";
  $("trouble-is").hidden = lines.length > 0;
  $("last").textContent = lines.join("\n");
  $("last").hidden = !lines.length;
}

function bars(all) {
  $("bars").replaceChildren(...all.map(({ what, done, total, left }) => {
    const label = document.createElement("label"), bar = document.createElement("progress");
    const share = what === "sending" ? `${inWords(done)} of ${inWords(total)}` : `${done} of ${total}`;
    label.textContent = `${what}: ${share}${left && left !== "?" ? `, about ${left} left` : ""}`;
    bar.max = Math.max(1, total);
    bar.value = done;
    label.append(bar);
    return label;
  }));
}

function now(run) {
  const text = run.bars.length ? "" : run.worked ? "Writing the result, or reading what comes next." : "Starting: reading the network and the scan.";
  if ($("now").textContent !== text) $("now").textContent = text; // a status is read aloud when it changes
}

const address = (run, name) => `runs/${run.number}/results/${name.split("/").map(encodeURIComponent).join("/")}`;

function link(href, text, download) {
  const item = document.createElement("li"), a = document.createElement("a");
  Object.assign(a, { href, textContent: text });
  if (download) a.download = "";
  item.append(a);
  return item;
}

function results(run) {
  const reports = run.results.filter(({ name }) => name.endsWith("/report.html"));
  $("results").hidden = !run.results.length;
  if (shown === `${run.number}` || !run.results.length) return;
  shown = `${run.number}`;
  $("downloads").replaceChildren(...run.results.map(({ name, bytes }) =>
    link(`${address(run, name)}?download`, `${name.split("/").pop()} (${inWords(bytes)})`, true)));
  $("cases").replaceChildren(...reports.map(({ name }) => new Option(name.split("/")[0], address(run, name))));
  $("cases-row").hidden = reports.length < 2;
  $("report").hidden = $("alone").hidden = !reports.length;
  if (reports.length) look();
}

function look() {
  $("report").src = $("alone").href = $("cases").value;
}
$("cases").addEventListener("change", look);

function show(state) {
  $("version").textContent = state.version;
  $("kept").textContent = state.output
    ? `Uploads go when a run ends. Results are kept in ${state.output}.`
    : "Uploads go when a run ends, and results when the page's program ends: download what you want to keep.";
  const runs = state.runs.filter(({ state }) => state !== "uploading"), run = runs.at(-1);
  const past = runs.slice(0, -1).filter(({ results }) => results.some(({ name }) => name.endsWith("/report.html")));
  $("earlier").hidden = !past.length;
  if ($("runs").childElementCount !== past.length) $("runs").replaceChildren(...past.map((one) => {
    const item = link(address(one, one.results.find(({ name }) => name.endsWith("/report.html")).name),
      `${one.number}: ${one.files[0] ?? "the embedded scan"}, ${one.task}, ${one.preset}`, false);
    Object.assign(item.firstChild, { target: "_blank", rel: "noopener" });
    return item;
  }));
  if (!run) return false;
  const working = run.state === "running";
  $("status").hidden = $("same").hidden = $("more").hidden = false;
  $("working").hidden = !working;
  $("go").disabled = working;
  $("cancel").dataset.run = run.number;
  $("h-status").textContent = WORDS[run.state];
  $("command").textContent = run.command;
  $("said").textContent = run.lines.join("\n");
  $("more").hidden = !run.lines.length;
  $("trouble").hidden = true;
  if (run.state === "failed") trouble(WORDS.failed, run.last);
  if (run.state === "cancelled") trouble(WORDS.cancelled, run.results.length ? ["What was written before is below."] : []);
  bars(run.bars);
  now(run);
  results(run);
  return working;
}

async function follow() {
  for (;;) {
    try {
      if (!show(await ask("state"))) return;
    } catch {
      trouble("The page's program has ended", ["Start it again: interslice page"]);
      $("go").disabled = true;
      return;
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}
follow();
