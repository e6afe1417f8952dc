// Picture files to pixels: PNG by png.js, the rest by the browser.
import { InputError } from "./errors.js";
import { decodePng, isPng } from "./png.js";
import { upright } from "./upright.js";

const LARGEST = 64e6; // pixels; each takes about 10 bytes here
const STRIP = 1 << 22; // pixels on a canvas at a time: phones limit its size
const READABLE = "JPEG, PNG, WebP, BMP or AVIF";
const NAMES = { jpeg: "JPEG", webp: "WebP", bmp: "BMP", avif: "AVIF", heic: "HEIC" };

// What other files are, by what they begin with.
const OTHERS = [
  [/^GIF8/, "a GIF"],
  [/^(II\*\0|MM\0\*)/, "a TIFF"],
  [/^%PDF/, "a PDF"],
  [/^PK\x03\x04/, "a zip file"],
  [/^....TFL3/s, "a TFLite model"],
  [/^\s*(<\?xml[^]*)?<svg/, "an SVG"],
  [/^....ftyp(mp4|isom|qt|M4V|3gp|avc)/s, "a video"],
];

/** What a file is, by its first bytes: "png", "jpeg", "webp", "bmp", "avif" or "heic". */
function kindOf(head) {
  const text = String.fromCharCode(...head.subarray(0, 64));
  if (isPng(head)) return "png";
  if (text.startsWith("\xff\xd8\xff")) return "jpeg";
  if (/^RIFF....WEBP/s.test(text)) return "webp";
  if (/^BM.{16}/s.test(text)) return "bmp";
  if (/^....ftyp.*avif/s.test(text)) return "avif";
  if (/^....ftyp.*(hei[cxms]|mif1)/s.test(text)) return "heic";
  const other = OTHERS.find(([pattern]) => pattern.test(text));
  throw new InputError(`not a picture that can be read here: expected ${READABLE}. Received: ${other?.[1] ?? "another file"}`);
}

/** Walk a JPEG's segments to its end; throws if it breaks off, which browsers show as a gray rest. */
function checkJpeg(bytes) {
  let at = 2;
  while (at + 1 < bytes.length) {
    if (bytes[at] !== 0xff) {
      at++; // of the picture's data
      continue;
    }
    const marker = bytes[at + 1];
    if (marker === 0xd9) return;
    const alone = marker === 0 || marker === 0xff || marker === 1 || (marker >= 0xd0 && marker <= 0xd8);
    at += marker === 0xff ? 1 : 2;
    if (!alone) at += (bytes[at] << 8) | bytes[at + 1];
  }
  throw new InputError("not a readable JPEG: the file is cut off");
}

/** Throws for a file that is shorter than it says. */
function checkLength(kind, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (kind === "jpeg") checkJpeg(bytes);
  else if (kind === "webp" && view.getUint32(4, true) + 8 > bytes.length) {
    throw new InputError("not a readable WebP: the file is cut off");
  } else if (kind === "bmp" && view.getUint32(2, true) > bytes.length) {
    throw new InputError("not a readable BMP: the file is cut off");
  }
}

function check(width, height) {
  if (width * height > LARGEST) {
    throw new InputError(
      `${width} x ${height} pixels are more than the ${LARGEST / 1e6} million that this page takes; ` +
        "`segformer predict` takes larger ones",
    );
  }
}

/** The pixels of a bitmap, {width, height, rgba}, by strips. */
export function bitmapPixels(bitmap) {
  const { width, height } = bitmap;
  check(width, height);
  const rgba = new Uint8ClampedArray(width * height * 4);
  const rows = Math.max(1, Math.floor(STRIP / width));
  const canvas = new OffscreenCanvas(width, Math.min(rows, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.clearRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    rgba.set(context.getImageData(0, 0, width, count).data, top * width * 4);
  }
  return { width, height, rgba };
}

/**
 * Read a picture file as upright RGB, by the rules of `segformer predict`.
 *
 * @param {Blob} file
 * @param {number | null} bits in use in pictures of 16 bits; null: all
 * @returns {Promise<{width: number, height: number, rgba: Uint8ClampedArray, note: string}>} `note`: what a person
 *   should know of how it was read, or ""
 * @throws {InputError} a file that cannot be read, is cut off, or is too large
 */
export async function decodeImage(file, bits) {
  if (!file.size) throw new InputError("the file is empty");
  const kind = kindOf(new Uint8Array(await file.slice(0, 64).arrayBuffer()));
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (kind === "png") {
    const { turn, frames, ...stored } = await decodePng(bytes, { bits, check });
    return { ...upright(stored, turn), note: frames > 1 ? `Animated: the first of ${frames} pictures.` : "" };
  }
  checkLength(kind, bytes);
  let bitmap;
  try {
    // Neither may change a value: the network was trained on what is stored.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    const why = kind === "heic" ? "this browser cannot; save it as JPEG" : "it is damaged, or this browser cannot";
    throw new InputError(`not a readable ${NAMES[kind]} file: ${why}`);
  }
  try {
    const picture = bitmapPixels(bitmap);
    return { ...picture, note: note(kind, bytes, picture.rgba) };
  } finally {
    bitmap.close();
  }
}

function note(kind, bytes, rgba) {
  if (kind === "webp" && bytes[12 + 3] === 0x58 && bytes[20] & 2) return "Animated: the first of its pictures.";
  for (let i = 3; i < rgba.length; i += 4) {
    if (rgba[i] < 255) return "Partly transparent: colors there may differ from those that `segformer predict` sees.";
  }
  return "";
}
