// A picture and its mask, in a page of your own. docs/web.md says which files go beside it.
import * as litert from "@litertjs/core";
import { Segmenter } from "./page/segmenter.js";

const [input, canvas, legend] = ["input", "canvas", "p"].map((name) => document.querySelector(name));
await litert.loadLiteRt("./node_modules/@litertjs/core/wasm");
const model = await (await fetch("model.tflite")).arrayBuffer();
const segmenter = await Segmenter.open(litert, new Uint8Array(model), { accelerator: "wasm" });
const { names, colors } = segmenter.info;
legend.textContent = "Choose a picture.";

input.addEventListener("change", async () => {
  const { picture, mask } = await segmenter.segment(input.files[0]); // mask: class ids, one for each pixel
  const pixels = new ImageData(picture.rgba, picture.width, picture.height);
  mask.forEach((id, i) => colors[id].forEach((value, c) => (pixels.data[4 * i + c] = (pixels.data[4 * i + c] + value) / 2)));
  Object.assign(canvas, { width: picture.width, height: picture.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  legend.textContent = [...new Set(mask)].map((id) => names[id]).join(", ");
});
