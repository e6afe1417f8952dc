// Networks in workers, and the choice between WASM and WebGPU.
import { InputError } from "./errors.js";

const LEAST_SAME = 0.99; // of the grid's classes; int8 rounds otherwise on a GPU, as it does between CPUs
const PATIENCE = 20_000; // milliseconds for WebGPU to be ready and run twice

/** A network in a worker. */
class Engine {
  constructor(accelerator) {
    this.accelerator = accelerator;
    this.waiting = new Map();
    this.worker = new Worker(new URL("worker.js", import.meta.url));
    this.worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new InputError(error));
      if (this.retired && !this.waiting.size) this.end();
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.end(`the network broke off (${event.message || "a script is missing"}); load the page again`);
    };
  }

  call(operation, request, transfer = []) {
    return new Promise((resolve, reject) => {
      if (this.ended) throw new InputError(this.ended);
      const id = crypto.randomUUID();
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, operation, ...request }, transfer);
    });
  }

  /** End after what it still has to answer. */
  retire() {
    this.retired = true;
    if (!this.waiting.size) this.end();
  }

  end(reason = "stopped") {
    this.ended = reason;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(new InputError(reason));
    this.waiting.clear();
  }
}

/** Share of grid places where two logit tensors have the same largest class. */
export function sameClasses(a, b, classes) {
  let same = 0;
  for (let i = 0; i < a.length; i += classes) {
    const largest = (values) => {
      let best = i;
      for (let k = i + 1; k < i + classes; k++) if (values[k] > values[best]) best = k;
      return best;
    };
    same += largest(a) === largest(b) && b.subarray(i, i + classes).every(Number.isFinite);
  }
  return (same * classes) / a.length;
}

/** A model on WASM, and on WebGPU once the first picture showed that it gives the same there, and sooner. */
export class Model {
  /**
   * @param {Uint8Array} bytes of a .tflite
   * @param {(sentence: string) => void} onEngine called with what is in use, and why
   */
  static async open(bytes, onEngine) {
    const model = new Model();
    model.bytes = bytes;
    model.engine = new Engine("wasm");
    try {
      Object.assign(model, await model.engine.call("open", { bytes, accelerator: "wasm" }));
    } catch (error) {
      model.close();
      throw error;
    }
    model.onEngine = onEngine;
    model.wasm = `WASM, ${model.threads} thread${model.threads === 1 ? "" : "s"}`;
    model.unchecked = Boolean(navigator.gpu);
    onEngine(model.wasm + (navigator.gpu ? "" : "; this browser has no WebGPU"));
    return model;
  }

  /** What `Segmenter.segment` gives. */
  async segment(source) {
    const transfer = source instanceof ImageBitmap ? [source] : [];
    const { input, logits, ...result } = await this.engine.call("segment", { source }, transfer);
    if (this.unchecked) {
      this.unchecked = false;
      this.checking = this.checkGpu(input, logits, result.speed.inference);
    }
    return result;
  }

  /** Run the same input on WebGPU, and move there if it gives the same, sooner. */
  async checkGpu(input, logits, wasmTime) {
    this.onEngine(`${this.wasm}; trying WebGPU …`);
    const gpu = new Engine("webgpu");
    this.candidate = gpu;
    const clock = setTimeout(() => gpu.end(`not ready within ${PATIENCE / 1000} s`), PATIENCE);
    let why;
    try {
      await gpu.call("open", { bytes: this.bytes, accelerator: "webgpu" });
      await gpu.call("infer", { input }); // compiles shaders
      const { logits: there, time } = await gpu.call("infer", { input });
      const same = sameClasses(logits, there, this.info.names.length);
      const percent = `the same class on ${(100 * same).toFixed(2)} % of the grid`;
      const times = `${Math.round(time)} ms, WASM ${Math.round(wasmTime)} ms`;
      if (same < LEAST_SAME) why = `WebGPU gives another result (${percent}), so it is not used`;
      else if (time >= wasmTime) why = `WebGPU is right (${percent}), but not faster (${times})`;
      else why = null;
      if (!why && !this.closed) {
        this.engine.retire();
        this.engine = gpu;
        this.onEngine(`WebGPU: ${percent} as WASM, ${times}`);
      }
    } catch (error) {
      why = `WebGPU is not used: ${error.message}`;
    }
    clearTimeout(clock);
    if (this.engine !== gpu) gpu.end();
    if (why && !this.closed) this.onEngine(`${this.wasm}. ${why}`);
  }

  close() {
    this.closed = true;
    this.engine.end("another model was opened meanwhile");
    this.candidate?.end();
  }
}
