// PNG, read and written. A canvas would change the colors of transparent pixels, and cannot tell 16 bits from 8.
import { InputError } from "./errors.js";
import { exifOrientation } from "./upright.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by color type
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// Adam7: first column and row, and their steps.
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

export const isPng = (head) => SIGNATURE.every((byte, i) => head[i] === byte);

/** The chunks {type, data} of a file up to its end, or up to where it breaks off. */
function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = SIGNATURE.length;
  while (at + 8 <= bytes.length) {
    const size = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    yield { type, data: bytes.subarray(at + 8, Math.min(at + 8 + size, bytes.length)) };
    at += 12 + size;
  }
}

/** What the file says before its pixels. */
function header(bytes) {
  const [first] = chunks(bytes);
  if (first?.type !== "IHDR" || first.data.length < 13) throw new InputError("not a readable PNG: it has no header");
  const view = new DataView(first.data.buffer, first.data.byteOffset, 13);
  const [width, height, depth, color] = [view.getUint32(0), view.getUint32(4), view.getUint8(8), view.getUint8(9)];
  if (!DEPTHS[color]?.includes(depth) || !width || !height || view.getUint8(12) > 1) {
    throw new InputError("not a readable PNG: its header is damaged");
  }
  return { width, height, depth, color, interlaced: view.getUint8(12) === 1 };
}

/** Inflate parts to exactly `size` bytes. */
async function inflate(parts, size) {
  const out = new Uint8Array(size);
  let filled = 0;
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const fitting = value.subarray(0, size - filled);
      out.set(fitting, filled);
      filled += fitting.length;
      if (value.length > fitting.length) {
        await reader.cancel();
        break;
      }
    }
  } catch {
    throw new InputError("not a readable PNG: its pixels are damaged or cut off");
  }
  if (filled < size) throw new InputError("not a readable PNG: the file is cut off");
  return out;
}

/** Undo the filter of `height` rows of `stride` bytes, each behind a byte that says which; in place. */
function unfilter(bytes, start, height, stride, pixel) {
  for (let y = 0; y < height; y++) {
    const row = start + y * (stride + 1) + 1;
    const above = y ? row - stride - 1 : -1;
    const filter = bytes[row - 1];
    if (filter > 4) throw new InputError("not a readable PNG: its pixels are damaged");
    if (!filter) continue;
    for (let i = 0; i < stride; i++) {
      const left = i >= pixel ? bytes[row + i - pixel] : 0;
      const up = y ? bytes[above + i] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else {
        const corner = y && i >= pixel ? bytes[above + i - pixel] : 0;
        const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      bytes[row + i] += guess;
    }
  }
}

/** How a stored sample becomes one of 8 bits. */
function scaling({ depth, color }, bits) {
  if (depth < 8) return color === 3 ? (value) => value : (value) => (value * 255) / ((1 << depth) - 1);
  if (depth === 8) return (value) => value;
  if (bits === null || bits === 16) return (value) => value >> 8;
  if (color !== 0) {
    throw new InputError(
      `16 bits per channel in color, of which only the upper 8 can be read, so not ${bits}, as the model expects; ` +
        "save it with 8 bits per channel",
    );
  }
  return (value) => {
    if (value >> bits) throw new InputError(`pixels reach ${value}, more than the ${bits} bits that the model expects`);
    return value >> (bits - 8);
  };
}

/**
 * Read a PNG as Pillow does: transparency is dropped, 16 bits become their upper 8.
 *
 * @param {Uint8Array} bytes the file
 * @param {{bits: number | null, check: (width: number, height: number) => void}} options `bits` in use, 8 to 16, in a
 *   picture of 16 (null: all); `check` throws for a size that is too large
 * @returns {Promise<{width: number, height: number, rgba: Uint8ClampedArray, turn: number, frames: number}>} as it is
 *   stored; `turn` is its EXIF orientation
 * @throws {InputError} a damaged file, or one that is cut off
 */
export async function decodePng(bytes, { bits, check }) {
  const head = header(bytes);
  const { width, height, depth, color } = head;
  check(width, height);
  const data = [];
  let palette = null;
  let turn = 1;
  let frames = 1;
  for (const chunk of chunks(bytes)) {
    if (chunk.type === "IDAT") data.push(chunk.data);
    else if (chunk.type === "PLTE") palette = chunk.data;
    else if (chunk.type === "eXIf") turn = exifOrientation(chunk.data);
    else if (chunk.type === "acTL" && chunk.data.length >= 4) frames = (chunk.data[2] << 8) | chunk.data[3];
  }
  if (color === 3 && !palette) throw new InputError("not a readable PNG: its palette is missing");

  const bitsPerPixel = CHANNELS[color] * depth;
  const stride = (columns) => Math.ceil((columns * bitsPerPixel) / 8);
  const parts = (head.interlaced ? PASSES : [[0, 0, 1, 1]])
    .map(([x, y, right, down]) => {
      const columns = Math.ceil((width - x) / right);
      return { x, y, right, down, columns, rows: columns > 0 ? Math.ceil((height - y) / down) : 0 };
    })
    .filter(({ rows }) => rows > 0);
  const size = parts.reduce((sum, part) => sum + part.rows * (stride(part.columns) + 1), 0);
  const raw = await inflate(data, size);

  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  const scale = scaling(head, bits);
  let start = 0;
  for (const part of parts) {
    const row = stride(part.columns);
    unfilter(raw, start, part.rows, row, Math.max(1, bitsPerPixel >> 3));
    for (let y = 0; y < part.rows; y++) {
      const from = start + y * (row + 1) + 1;
      const line = samples(raw.subarray(from, from + row), part.columns * CHANNELS[color], depth, scale);
      writeRow(rgba, ((part.y + y * part.down) * width + part.x) * 4, 4 * part.right, line, color, palette);
    }
    start += part.rows * (row + 1);
  }
  return { width, height, rgba, turn, frames };
}

/** The first `count` samples of a row as bytes. */
function samples(row, count, depth, scale) {
  if (depth === 8) return row.subarray(0, count);
  const out = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const bit = i * depth;
    const value =
      depth === 16 ? (row[2 * i] << 8) | row[2 * i + 1] : (row[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
    out[i] = scale(value);
  }
  return out;
}

/** A row of samples as pixels that are `step` bytes apart, from `to` on. */
function writeRow(rgba, to, step, line, color, palette) {
  const channels = CHANNELS[color];
  const colored = channels > 2; // else all three take the first
  for (let at = 0; at < line.length; at += channels, to += step) {
    for (let c = 0; c < 3; c++) {
      rgba[to + c] = color === 3 ? (palette[3 * line[at] + c] ?? 0) : line[colored ? at + c : at];
    }
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  let crc = 0xffffffff;
  for (const byte of bytes.subarray(4, -4)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(bytes.length - 4, ~crc);
  return bytes;
}

/** A PNG of rows of `stride` bytes; each is stored as its difference to the byte `pixel` before it, if not 0. */
async function encode(width, height, color, rows, stride, pixel, extra) {
  const raw = new Uint8Array(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    const at = y * (stride + 1);
    raw[at] = pixel ? 1 : 0;
    for (let i = 0; i < stride; i++) {
      raw[at + 1 + i] = rows[y * stride + i] - (pixel && i >= pixel ? rows[y * stride + i - pixel] : 0);
    }
  }
  const packed = new Blob([raw]).stream().pipeThrough(new CompressionStream("deflate"));
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, color], 8);
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const parts = [chunk("IHDR", head), ...extra, chunk("IDAT", data), chunk("IEND", new Uint8Array(0))];
  return new Blob([new Uint8Array(SIGNATURE), ...parts], { type: "image/png" });
}

/** Class ids (height, width) as a palette PNG: index = class id, in the classes' [r, g, b]. */
export function encodeMask(mask, width, height, colors) {
  return encode(width, height, 3, mask, width, 0, [chunk("PLTE", new Uint8Array(colors.flat()))]);
}

/** (height, width, 3) RGB as a PNG. */
export function encodeRgb(rgb, width, height) {
  return encode(width, height, 2, rgb, 3 * width, 3, []);
}
