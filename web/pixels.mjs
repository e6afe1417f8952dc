// Resize, mask and PNG of the page, without a browser, for tests: reads and writes raw files as a job says.
import { readFile, writeFile } from "node:fs/promises";
import { logitsToMask } from "../segformer_tf/edge/serve/page/mask.js";
import { decodePng, encodeMask, encodeRgb } from "../segformer_tf/edge/serve/page/png.js";
import { resize } from "../segformer_tf/edge/serve/page/resize.js";
import { upright } from "../segformer_tf/edge/serve/page/upright.js";

const bytes = async (file) => new Uint8Array(await readFile(file)).slice();
const blobBytes = async (blob) => new Uint8Array(await (await blob).arrayBuffer());

const actions = {
  async mask({ file, grid: [height, width, classes], size }) {
    const logits = new Float32Array((await bytes(file)).buffer);
    return logitsToMask(logits, { height, width, classes }, size[1], size[0]);
  },
  async resize({ file, from: [height, width], size }) {
    return resize({ width, height, rgba: await bytes(file) }, size[1], size[0]);
  },
  async png({ file, bits }) {
    const { turn, ...stored } = await decodePng(await bytes(file), { bits, check() {} });
    return upright(stored, turn).rgba;
  },
  async encodeMask({ file, size, colors }) {
    return blobBytes(encodeMask(await bytes(file), size[1], size[0], colors));
  },
  async encodeRgb({ file, size }) {
    return blobBytes(encodeRgb(await bytes(file), size[1], size[0]));
  },
};

const errors = [];
for (const step of JSON.parse(await readFile(process.argv[2], "utf-8"))) {
  try {
    await writeFile(step.to, await actions[step.do](step));
    errors.push("");
  } catch (error) {
    errors.push(error.message);
  }
}
console.log(JSON.stringify(errors));
