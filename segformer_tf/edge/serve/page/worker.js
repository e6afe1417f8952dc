// One network on one accelerator, away from the page's thread. A classic script, which LiteRT.js needs here.
const LITERT = new URL("litert/core/", self.location.href).href;

const ready = Promise.all([
  import("./segmenter.js"),
  import("./errors.js"),
  import(`${LITERT}dist/index.js`),
]);
let opened = null; // promise of a Segmenter

async function loadRuntime(litert, threads) {
  const wasm = `${LITERT}wasm/`;
  // Where the runtime looks for its files: in a worker, it would be beside this script.
  const files = (script) => ({ locateFile: (name) => wasm + name, mainScriptUrlOrBlob: wasm + script });
  try {
    if (threads > 1) {
      self.Module = files("litert_wasm_threaded_internal.js");
      await litert.loadLiteRt(wasm, { threads: true });
      return threads;
    }
  } catch {
    // no relaxed SIMD in this browser: one thread
  }
  self.Module = files("litert_wasm_internal.js");
  await litert.loadLiteRt(wasm);
  return 1;
}

async function open({ bytes, accelerator }) {
  const [{ Segmenter }, { InputError }, litert] = await ready;
  const cores = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const threads = await loadRuntime(litert, accelerator === "wasm" ? cores : 1);
  if (accelerator === "webgpu" && !litert.getWebGpuDevice()) throw new InputError("this browser gives it no device");
  return { threads, segmenter: await Segmenter.open(litert, bytes, { accelerator, cpuOptions: { numThreads: threads } }) };
}

const operations = {
  async open(request) {
    opened = open(request);
    const { threads, segmenter } = await opened;
    const { info, width, height } = segmenter;
    return [{ info, width, height, threads }, []];
  },
  async segment({ source }) {
    const { segmenter } = await opened;
    const result = await segmenter.segment(source);
    if (source instanceof ImageBitmap) source.close();
    const { picture, mask, input, logits } = result;
    return [result, [picture.rgba.buffer, mask.buffer, input.buffer, logits.buffer]];
  },
  async infer({ input }) {
    const { segmenter } = await opened;
    const start = performance.now();
    const logits = await segmenter.infer(input);
    return [{ logits, time: performance.now() - start }, [logits.buffer]];
  },
};

self.onmessage = async ({ data: { id, operation, ...request } }) => {
  try {
    const [answer, transfer] = await operations[operation](request);
    self.postMessage({ id, answer }, transfer);
  } catch (error) {
    const { sentence } = (await ready.catch(() => []))[1] ?? { sentence: (each) => String(each?.message ?? each) };
    self.postMessage({ id, error: sentence(error) });
  }
};
