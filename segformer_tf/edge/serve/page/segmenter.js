// From a .tflite and a picture to a mask of the picture's own size, as `segformer_tf.edge.Segmenter`.
import { bitmapPixels, decodeImage } from "./decode.js";
import { InputError } from "./errors.js";
import { logitsToMask } from "./mask.js";
import { readModelInfo } from "./metadata.js";
import { resize } from "./resize.js";

const TYPES = { float32: Float32Array, uint8: Uint8Array };

export class Segmenter {
  /**
   * Open a model that `segformer export` wrote.
   *
   * @param {typeof import("@litertjs/core")} litert LiteRT.js, after its `loadLiteRt`
   * @param {Uint8Array} bytes of the .tflite
   * @param {object} options of its `loadAndCompile`, such as {accelerator: "webgpu"}
   * @throws {InputError} another file, or one that LiteRT.js or the accelerator refuses
   */
  static async open(litert, bytes, options = { accelerator: "wasm" }) {
    const info = await readModelInfo(bytes);
    let model;
    try {
      model = await litert.loadAndCompile(bytes, options);
    } catch (error) {
      throw new InputError(`LiteRT.js refuses this file of recipe ${info.recipe} (${String(error.message ?? error)})`);
    }
    const onGpu = options.accelerator === "webgpu";
    if (onGpu && (model.options.accelerator !== "webgpu" || !model.isFullyAccelerated)) {
      throw new InputError("WebGPU takes only a part of the model");
    }
    return new Segmenter(litert, model, info);
  }

  constructor(litert, model, info) {
    const inputs = model.getInputDetails();
    const outputs = model.getOutputDetails();
    const logits = outputs.findIndex(({ shape, dtype }) => {
      return shape.length === 4 && shape[0] === 1 && shape[3] === info.names.length && dtype === "float32";
    });
    const [{ shape, dtype }] = inputs;
    if (inputs.length !== 1 || shape.length !== 4 || shape[0] !== 1 || shape[3] !== 3 || !TYPES[dtype] || logits < 0) {
      const text = (each) => `${each.dtype} [${[...each.shape].join(", ")}]`;
      throw new InputError(
        `expected an image [1, H, W, 3] of float32 or uint8 in, float32 logits [1, h, w, ${info.names.length}] out. ` +
          `Received: ${inputs.map(text).join(", ")} in, ${outputs.map(text).join(", ")} out`,
      );
    }
    Object.assign(this, { litert, model, info, output: logits, type: TYPES[dtype] });
    [, this.height, this.width] = shape;
    this.grid = { height: outputs[logits].shape[1], width: outputs[logits].shape[2], classes: info.names.length };
  }

  /**
   * Segment a picture.
   *
   * @param {Blob | ImageBitmap} source a picture file, or a frame
   * @returns {Promise<{picture: {width: number, height: number, rgba: Uint8ClampedArray}, mask: Uint8Array,
   *   note: string, speed: {decode: number, preprocess: number, inference: number, mask: number},
   *   input: Float32Array | Uint8Array, logits: Float32Array}>} the picture as it was read, (height, width) class ids,
   *   what a person should know, milliseconds, and what went into the network and came out
   * @throws {InputError} a picture that cannot be read
   */
  async segment(source) {
    const clock = [performance.now()];
    const { note = "", ...picture } =
      source instanceof Blob ? await decodeImage(source, this.info.bits) : bitmapPixels(source);
    clock.push(performance.now());
    const input = this.type.from(resize(picture, this.width, this.height));
    clock.push(performance.now());
    const logits = await this.infer(input);
    clock.push(performance.now());
    const mask = logitsToMask(logits, this.grid, picture.width, picture.height);
    clock.push(performance.now());
    const [decode, preprocess, inference, masking] = clock.slice(1).map((time, i) => time - clock[i]);
    return { picture, mask, note, speed: { decode, preprocess, inference, mask: masking }, input, logits };
  }

  /** (height, width, 3) values of 0..255 to logits, `grid`. */
  async infer(input) {
    const tensor = new this.litert.Tensor(input, [1, this.height, this.width, 3]);
    const outputs = await this.model.run(tensor);
    tensor.delete();
    const there = outputs[this.output];
    const here = there.accelerator === "wasm" ? there : await there.copyTo("wasm");
    const logits = here.toTypedArray().slice();
    for (const each of new Set([...outputs, here])) each.delete();
    return logits;
  }
}
