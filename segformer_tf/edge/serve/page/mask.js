// Logits at 1/4 -> class mask at the picture's own size, as `segformer_tf/mask.py`.
//
// The grid of logits divides the picture into cells, with a logit vector at each corner. If the four corners have the
// same largest class, so does every pixel of the cell; only the mixed cells need interpolation.

/** One axis, divided at the grid points: for each cell its two grid points and its output positions. */
function cells(from, to) {
  const weight = new Float64Array(to);
  const list = [];
  let last = null;
  for (let i = 0; i < to; i++) {
    const place = (i + 0.5) * (from / to) - 0.5;
    const below = Math.floor(place);
    weight[i] = place - below;
    if (last?.below !== below) {
      const inside = (n) => Math.min(Math.max(n, 0), from - 1);
      last = { below, low: inside(below), high: inside(below + 1), start: i, stop: i };
      list.push(last);
    }
    last.stop = i + 1;
  }
  return { list, weight };
}

/** Index of the largest of `count` values; the first of equal ones, and a NaN counts as the largest. */
function largest(values, start, count) {
  let best = 0;
  for (let k = 1; k < count; k++) {
    const value = values[start + k];
    const before = values[start + best];
    if (value > before || (value !== value && before === before)) best = k;
  }
  return best;
}

/**
 * Arg-max of one half-pixel bilinear resize, without the resized logits; the arithmetic is float64.
 *
 * @param {Float32Array} logits (h, w, classes)
 * @param {{height: number, width: number, classes: number}} grid shape of the logits; up to 255 classes
 * @param {number} width of the mask
 * @param {number} height of the mask
 * @returns {Uint8Array} (height, width) class ids; the lowest of equal ones
 */
export function logitsToMask(logits, grid, width, height) {
  const { classes } = grid;
  const best = new Uint8Array(grid.height * grid.width);
  for (let i = 0; i < best.length; i++) best[i] = largest(logits, i * classes, classes);
  const rows = cells(grid.height, height);
  const columns = cells(grid.width, width);
  const mask = new Uint8Array(height * width);
  const mix = mixer(logits, classes);
  for (const row of rows.list) {
    const upper = row.low * grid.width;
    const lower = row.high * grid.width;
    for (const column of columns.list) {
      const corners = [upper + column.low, upper + column.high, lower + column.low, lower + column.high];
      const id = best[corners[0]];
      const uniform = id === best[corners[1]] && id === best[corners[2]] && id === best[corners[3]];
      if (!uniform) mix.corners(corners);
      for (let y = row.start; y < row.stop; y++) {
        const at = y * width;
        if (uniform) {
          for (let x = column.start; x < column.stop; x++) mask[at + x] = id;
        } else {
          mix.row(rows.weight[y]);
          for (let x = column.start; x < column.stop; x++) mask[at + x] = mix.pixel(columns.weight[x]);
        }
      }
    }
  }
  return mask;
}

/** Interpolation inside a mixed cell, of the classes that can win there. */
function mixer(logits, classes) {
  const ids = new Uint8Array(classes);
  const tables = [0, 1, 2, 3, 4, 5].map(() => new Float64Array(classes));
  const [left, leftChange, right, rightChange, before, change] = tables;
  const values = new Float64Array(classes);
  let count = 0;
  return {
    corners(places) {
      const [a, b, c, d] = places.map((place) => place * classes);
      let floor = -Infinity; // a class whose best corner is below another's worst cannot win; a NaN excludes none
      for (let k = 0; k < classes; k++) {
        floor = Math.max(floor, Math.min(logits[a + k], logits[b + k], logits[c + k], logits[d + k]));
      }
      count = 0;
      for (let k = 0; k < classes; k++) {
        if (Math.max(logits[a + k], logits[b + k], logits[c + k], logits[d + k]) < floor) continue;
        ids[count] = k;
        left[count] = logits[a + k];
        right[count] = logits[b + k];
        leftChange[count] = logits[c + k] - logits[a + k];
        rightChange[count] = logits[d + k] - logits[b + k];
        count++;
      }
    },
    row(down) {
      for (let k = 0; k < count; k++) {
        before[k] = left[k] + leftChange[k] * down;
        change[k] = right[k] + rightChange[k] * down - before[k];
      }
    },
    pixel(across) {
      for (let k = 0; k < count; k++) values[k] = before[k] + change[k] * across;
      return ids[largest(values, 0, count)];
    },
  };
}
