// Runs one input through a .tflite on LiteRT.js in Chromium, for a comparison with other runtimes.
//
//   node agreement.mjs MODEL.tflite INPUT.bin OUTPUT --accelerator wasm|webgpu [--runs 5] [--threads N]
//
// INPUT.bin holds the input tensor's values, little-endian, of the type that the model takes. Written are OUTPUT.0.bin,
// OUTPUT.1.bin … for the outputs in the model's order, and OUTPUT.json, which says what they are. --threads counts
// those of WASM; the default is all cores. Ends with 1 and a line on standard error where the browser, the runtime or
// the accelerator refuses, or where WebGPU takes a part of the model only.
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { launch } from "./browser.mjs";

const MODULES = join(dirname(fileURLToPath(import.meta.url)), "node_modules", "@litertjs");
const TYPES = { ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };
const PAGE = `<!doctype html><script type="importmap">{"imports": {
  "@litertjs/core": "/litert/core/dist/index.js", "@litertjs/wasm-utils": "/litert/wasm-utils/dist/index.js"
}}</script><body></body>`;

/** A server on loopback of a page, LiteRT.js and some bytes by name, isolated as threads need it. */
async function serve(files) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const headers = {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
      "Content-Type": TYPES[extname(pathname)] ?? "application/octet-stream",
    };
    try {
      const file = pathname.startsWith("/litert/") && join(MODULES, normalize(pathname.slice("/litert".length)));
      const content = files[pathname] ?? (await readFile(file));
      response.writeHead(200, headers).end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  return server;
}

/** In the page: compile, run, and give outputs and times. */
async function inPage({ accelerator, runs, threads }) {
  const { loadLiteRt, loadAndCompile, getWebGpuDevice, Tensor } = await import("@litertjs/core");
  const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
  const cores = threads ?? navigator.hardwareConcurrency;
  const onGpu = accelerator === "webgpu";
  await loadLiteRt("/litert/core/wasm", { threads: !onGpu && cores > 1 });
  if (onGpu && !getWebGpuDevice()) throw new Error("this browser has no WebGPU device");
  const loading = performance.now();
  const model = await loadAndCompile(await bytes("/model.tflite"), { accelerator, cpuOptions: { numThreads: cores } });
  const loaded = performance.now() - loading;
  if (onGpu && (model.options.accelerator !== "webgpu" || !model.isFullyAccelerated)) {
    throw new Error("WebGPU takes only a part of the model");
  }
  const inputs = model.getInputDetails();
  if (inputs.length !== 1) throw new Error(`expected one input. Received: ${inputs.length}`);
  const [{ dtype, shape }] = inputs;
  const types = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
  const raw = await bytes("/input.bin");
  const expected = shape.reduce((a, b) => a * b, types[dtype].BYTES_PER_ELEMENT);
  if (raw.length !== expected) {
    throw new Error(`expected ${expected} bytes of ${dtype} [${[...shape]}] as input. Received: ${raw.length}`);
  }
  const values = new types[dtype](raw.buffer);
  const times = [];
  let answer = [];
  for (let run = 0; run <= runs; run++) {
    const start = performance.now();
    const input = new Tensor(values, [...shape]);
    const outputs = await model.run(input);
    input.delete();
    answer = [];
    for (const output of outputs) {
      const there = output.accelerator === "wasm" ? output : await output.moveTo("wasm");
      answer.push(there.toTypedArray().slice());
      there.delete();
    }
    if (run) times.push(performance.now() - start); // the first one warms up
  }
  const toBase64 = (array) =>
    new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.readAsDataURL(new Blob([array]));
    });
  const adapter = onGpu ? (await navigator.gpu.requestAdapter()).info : null;
  return {
    outputs: model.getOutputDetails().map((each) => ({ name: each.name, dtype: each.dtype, shape: [...each.shape] })),
    values: await Promise.all(answer.map(toBase64)),
    input: { dtype, shape: [...shape] },
    median_ms: times.sort((a, b) => a - b)[Math.floor(times.length / 2)],
    load_ms: loaded,
    runs,
    threads: onGpu ? null : cores,
    adapter: adapter && [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(" "),
  };
}

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { accelerator: { type: "string" }, runs: { type: "string" }, threads: { type: "string" } },
  });
  const count = (name, usual) => {
    const value = values[name] === undefined ? usual : Number(values[name]);
    if (value !== null && !(Number.isInteger(value) && value > 0)) {
      throw new Error(`--${name} must be a positive number. Received: ${values[name]}`);
    }
    return value;
  };
  if (positionals.length !== 3 || !["wasm", "webgpu"].includes(values.accelerator)) {
    throw new Error("expected MODEL.tflite INPUT.bin OUTPUT --accelerator wasm|webgpu");
  }
  return { files: positionals, accelerator: values.accelerator, runs: count("runs", 5), threads: count("threads", null) };
}

async function main() {
  const { files, ...how } = options();
  const [model, input] = await Promise.all(files.slice(0, 2).map((file) => readFile(file)));
  const server = await serve({ "/index.html": PAGE, "/model.tflite": model, "/input.bin": input });
  const browser = await launch({ webgpu: how.accelerator === "webgpu" });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/index.html`);
    const { values, ...answer } = await page.evaluate(inPage, how);
    await Promise.all(values.map((value, i) => writeFile(`${files[2]}.${i}.bin`, Buffer.from(value, "base64"))));
    const core = JSON.parse(await readFile(join(MODULES, "core", "package.json"), "utf-8"));
    const report = { accelerator: how.accelerator, ...answer, litertjs: core.version, chromium: browser.version() };
    await writeFile(`${files[2]}.json`, JSON.stringify(report, null, 1) + "\n");
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
  }
}

main().catch((error) => {
  const line = String(error.message ?? error).split("\n")[0].replace(/^page\.\w+: (Error: )?/, "");
  console.error(`agreement: ${line}`);
  process.exit(1);
});
