// The antialiased bilinear resize of Pillow 13, bit by bit: two passes, rounded to 8 bits between them, with weights of
// 22 bits. Up to Pillow 12, the pass across always came first; values of tall pictures differ by 1 there.

const BITS = 22;

/** For each of `to` positions the first input and the weights of the inputs from there on, as 22-bit integers. */
function taps(from, to) {
  const ratio = from / to;
  const reach = Math.max(ratio, 1);
  const count = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(to);
  const size = new Int32Array(to);
  const weights = new Int32Array(to * count);
  const row = new Float64Array(count);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * ratio;
    first[i] = Math.max(Math.trunc(center - reach + 0.5), 0);
    size[i] = Math.min(Math.trunc(center + reach + 0.5), from) - first[i];
    let sum = 0;
    for (let k = 0; k < size[i]; k++) {
      row[k] = Math.max(1 - Math.abs((first[i] + k - center + 0.5) * (1 / reach)), 0);
      sum += row[k];
    }
    for (let k = 0; k < size[i]; k++) weights[i * count + k] = Math.trunc((row[k] / sum) * (1 << BITS) + 0.5);
  }
  return { first, size, weights, count };
}

/** Weighted mean along an axis of `lines` lines; a line's values are `step` apart, and 3 channels lie side by side. */
function mean(values, { first, size, weights, count }, out, lines, from, to) {
  const half = 1 << (BITS - 1);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < first.length; i++) {
      let place = line * from.line + first[i] * from.step;
      let red = half;
      let green = half;
      let blue = half;
      for (let k = i * count; k < i * count + size[i]; k++, place += from.step) {
        red += values[place] * weights[k];
        green += values[place + 1] * weights[k];
        blue += values[place + 2] * weights[k];
      }
      const at = line * to.line + i * to.step;
      out[at] = red >> BITS;
      out[at + 1] = green >> BITS;
      out[at + 2] = blue >> BITS;
    }
  }
}

/**
 * Stretch a picture to a size.
 *
 * @param {{width: number, height: number, rgba: Uint8ClampedArray}} picture alpha is ignored
 * @param {number} width of the result
 * @param {number} height of the result
 * @returns {Uint8ClampedArray} (height, width, 3) RGB
 */
export function resize({ width: fromWidth, height: fromHeight, rgba }, width, height) {
  const across = taps(fromWidth, width);
  const down = taps(fromHeight, height);
  if (fromHeight > height && fromHeight - height > 2 * (fromWidth - width)) {
    const low = new Uint8ClampedArray(height * fromWidth * 3);
    mean(rgba, down, low, fromWidth, { line: 4, step: 4 * fromWidth }, { line: 3, step: 3 * fromWidth });
    if (width === fromWidth) return low;
    const out = new Uint8ClampedArray(height * width * 3);
    mean(low, across, out, height, { line: 3 * fromWidth, step: 3 }, { line: 3 * width, step: 3 });
    return out;
  }
  const wide = new Uint8ClampedArray(fromHeight * width * 3);
  mean(rgba, across, wide, fromHeight, { line: 4 * fromWidth, step: 4 }, { line: 3 * width, step: 3 });
  if (height === fromHeight) return wide;
  const out = new Uint8ClampedArray(height * width * 3);
  mean(wide, down, out, width, { line: 3, step: 3 * width }, { line: 3, step: 3 * width });
  return out;
}
