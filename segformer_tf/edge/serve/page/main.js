// The page: takes models and pictures, shows what comes of them, and says what went wrong.
import { Camera } from "./camera.js";
import { Model } from "./engine.js";
import { InputError, sentence } from "./errors.js";
import { encodeMask, encodeRgb } from "./png.js";
import { percent, View } from "./view.js";

const STAGES = { decode: "read", preprocess: "resize", inference: "network", mask: "mask" };

const element = (id) => document.getElementById(id);
const view = new View();
const state = { model: null, turn: 0, camera: null, name: "", busy: 0, said: ["", ""] };

/** Say what goes on; `more` is heard and not seen, as the legend shows it. */
function say(text, more = "") {
  state.said = [text, more];
  const heard = Object.assign(document.createElement("span"), { className: "only-heard", textContent: more });
  element("status").replaceChildren(text, heard);
}

/** Show what went wrong; without an error, nothing did. */
function problem(error, what = "") {
  element("problem").hidden = !error;
  element("problem").textContent = error ? what + sentence(error) : "";
}

/** Run one of the page's actions; whatever it throws is shown. */
async function attempt(what, action) {
  const before = state.said;
  problem(null);
  busy(1);
  try {
    await action();
  } catch (error) {
    problem(error, what);
    say(...before); // what is on the page is still there
  } finally {
    busy(-1);
  }
}

function busy(more) {
  state.busy += more;
  document.body.setAttribute("aria-busy", String(state.busy > 0));
}

function useModel(name, read) {
  return attempt(`${name}: `, async () => {
    say(`Loading ${name} …`);
    const bytes = await read();
    const model = await Model.open(bytes, (text) => (element("engine").textContent = text));
    stopCamera();
    state.model?.close();
    state.model = model;
    state.turn += 1; // what is shown, and what may still come, is another model's
    element("result").hidden = true;
    const { info, width, height } = model;
    element("model").textContent = `${name}: ${info.names.length} classes, ${info.recipe}, ${width} × ${height} pixels`;
    element("terms").hidden = false;
    element("terms").textContent = info.license ? `Terms of the model: ${info.license}` : "The model names no terms.";
    say("Ready for a picture.");
  });
}

async function servedModel() {
  const served = await (await fetch("served.json")).json();
  await useModel(served.name, async () => {
    const response = await fetch("served.tflite");
    if (!response.ok) throw new InputError("`segformer serve` cannot read its model any more");
    return new Uint8Array(await response.arrayBuffer());
  });
}

/** Segment a picture or frame and show it, unless a newer one came; `live` frames change no status. */
async function segment(source, name, live = false) {
  const turn = ++state.turn;
  const { model } = state;
  if (!model) throw new InputError("no model is open yet");
  const result = await model.segment(source);
  if (turn !== state.turn || model !== state.model) return;
  const shares = await view.show(result, model.info, name);
  state.name = name;
  element("result").hidden = false;
  showSpeed(result.speed);
  const { width, height } = result.picture;
  const most = shares.slice(0, 3).map(({ id, share }) => `${model.info.names[id]} ${percent(share)}`);
  if (!live) say(`${name}, ${width} × ${height} pixels. ${result.note}`, ` ${most.join(", ")}.`);
}

function showSpeed(speed) {
  const total = Object.values(speed).reduce((a, b) => a + b);
  const rows = [...Object.entries(STAGES).map(([key, text]) => [text, speed[key]]), ["together", total]];
  element("speed").replaceChildren(
    ...rows.map(([text, time]) => {
      const [row, term, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      term.textContent = text;
      value.textContent = time.toFixed(time < 10 ? 1 : 0);
      value.className = "number";
      row.append(term, value);
      return row;
    }),
  );
}

/** Take the first of some files: a model or a picture. */
function takeFiles(files) {
  const [file] = files;
  if (!file) return attempt("", () => Promise.reject(new InputError("that holds no file; expected a picture or a .tflite")));
  const more = files.length > 1 ? ` (the first of ${files.length} files)` : "";
  if (/\.tflite$/i.test(file.name)) return useModel(file.name, async () => new Uint8Array(await file.arrayBuffer()));
  return attempt(`${file.name}: `, async () => {
    stopCamera();
    say(`Segmenting ${file.name} …`);
    await segment(file, file.name + more);
  });
}

function stopCamera() {
  state.camera?.close();
  state.camera = null;
  element("camera").setAttribute("aria-pressed", "false");
  element("camera").textContent = "Camera";
}

async function runCamera() {
  if (state.camera) {
    stopCamera();
    say("The camera's last picture.");
    return;
  }
  await attempt("", async () => {
    const camera = await Camera.open();
    state.camera = camera;
    element("camera").setAttribute("aria-pressed", "true");
    element("camera").textContent = "Stop the camera";
    say("Live from the camera.");
    try {
      while (state.camera === camera) {
        const frame = await camera.frame();
        if (state.camera === camera) await segment(frame, "camera", true);
        await new Promise(requestAnimationFrame);
      }
    } catch (error) {
      if (state.camera === camera) throw error; // else it was stopped, or its model closed
    } finally {
      if (state.camera === camera) stopCamera();
    }
  });
}

async function save(what) {
  await attempt("", async () => {
    const { picture, mask } = view.result;
    const { width, height } = picture;
    const png =
      what === "mask"
        ? await encodeMask(mask, width, height, view.labels.colors)
        : await encodeRgb(view.overlay(), width, height);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(png);
    link.download = `${state.name.replace(/ \(the first .*/, "").replace(/\.\w+$/, "")}_${what}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

for (const [button, input] of [["choose", "file"], ["open-model", "model-file"]]) {
  element(button).addEventListener("click", () => element(input).click());
  element(input).addEventListener("change", async ({ target }) => {
    const files = [...target.files];
    target.value = ""; // so that the same file can be chosen again
    if (files.length) await takeFiles(files);
  });
}
element("camera").addEventListener("click", runCamera);
element("save-mask").addEventListener("click", () => save("mask"));
element("save-overlay").addEventListener("click", () => save("overlay"));
document.addEventListener("paste", (event) => {
  event.preventDefault();
  takeFiles([...event.clipboardData.files]);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("stage").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("stage").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("stage").classList.remove("over");
  takeFiles([...event.dataTransfer.files]);
});
window.addEventListener("unhandledrejection", ({ reason }) => problem(reason));
window.addEventListener("error", ({ error, message }) => problem(error ?? new Error(message)));

attempt("", servedModel);
