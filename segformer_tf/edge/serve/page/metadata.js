// What an exported .tflite says about itself, as `segformer_tf/edge/metadata.py`: a zip behind the model's bytes.
import { InputError } from "./errors.js";

const FORMAT = 2;
const LARGEST = 1 << 20; // bytes of a file in the zip that is not refused as damaged
const READ = ["segformer.json", "labels.txt"];
const COMMENT = 1 << 16; // most bytes behind the zip's end record

/** The files `READ` of the zip at the end of `bytes`, by name; null if there is none. */
async function zipFiles(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && end > bytes.length - 22 - COMMENT && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) return null;
  const size = view.getUint32(end + 12, true);
  const shift = end - size - view.getUint32(end + 16, true); // bytes before the zip that its offsets do not count
  const files = new Map();
  let at = end - size;
  for (let i = 0; i < view.getUint16(end + 10, true); i++) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new RangeError("its directory is damaged");
    const method = view.getUint16(at + 10, true);
    const packed = view.getUint32(at + 20, true);
    const [nameSize, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameSize));
    if (view.getUint32(at + 24, true) > LARGEST) throw new RangeError(`${name} is larger than ${LARGEST} bytes`);
    const local = view.getUint32(at + 42, true) + shift;
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (READ.includes(name)) files.set(name, await unpack(bytes.slice(start, start + packed), method));
    at += 46 + nameSize + extra + comment;
  }
  return files;
}

async function unpack(data, method) {
  if (method === 0) return data;
  if (method !== 8) throw new RangeError(`compression ${method} is unknown`);
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const reader = stream.getReader();
  const parts = [];
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    size += value.length;
    if (size > LARGEST) throw new RangeError(`a file in it is larger than ${LARGEST} bytes`); // than it says, too
    parts.push(value);
  }
}

async function checkDigest(bytes, model) {
  const digest = await crypto.subtle.digest("SHA-256", bytes.subarray(0, model.bytes));
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== model.sha256) {
    throw new InputError("damaged: its bytes are not those that were exported; copy or export it again");
  }
}

/**
 * Read the metadata of a .tflite and check that its bytes are those that were exported.
 *
 * @param {Uint8Array} bytes the file
 * @returns {Promise<{names: string[], colors: number[][], recipe: string, license: string, bits: number | null}>}
 * @throws {InputError} not a model that `segformer export` wrote, or a damaged one
 */
export async function readModelInfo(bytes) {
  if (!bytes.length) throw new InputError("the file is empty; expected a .tflite");
  if (new TextDecoder("latin1").decode(bytes.subarray(4, 8)) !== "TFL3") throw new InputError("not a TFLite file");
  const foreign = "not a model exported by `segformer export`, or an incomplete copy of one";
  try {
    const files = await zipFiles(bytes);
    if (!files?.has("segformer.json") || !files.has("labels.txt")) throw new InputError(foreign);
    const text = (name) => new TextDecoder("utf-8", { fatal: true }).decode(files.get(name));
    const info = JSON.parse(text("segformer.json"));
    if (info.format !== FORMAT) {
      throw new InputError(`metadata format ${info.format}, expected ${FORMAT}; export the model again`);
    }
    await checkDigest(bytes, info.model);
    const names = text("labels.txt").split("\n");
    const colors = info.palette;
    const isColor = (color) => color.length === 3 && color.every((v) => Number.isInteger(v) && v >= 0 && v <= 255);
    if (names.length !== colors.length || names.length > 255 || !colors.every(isColor)) {
      throw new RangeError("expected a color for each of up to 255 names");
    }
    const bits = info.input.bits ?? null;
    if (bits !== null && !(Number.isInteger(bits) && bits >= 8 && bits <= 16)) throw new RangeError(`bits are ${bits}`);
    return { names, colors, recipe: String(info.recipe), license: String(info.license ?? ""), bits };
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`its metadata is damaged (${error.message})`);
  }
}
