// EXIF orientation: how a picture was held.

/** The orientation, 1 (none) to 8, in EXIF data from its byte order mark on; 1 for what cannot be read. */
export function exifOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    const directory = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) !== 0x0112) continue;
      const turn = view.getUint16(entry + 8, little);
      return turn >= 1 && turn <= 8 ? turn : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it ends too early
  }
  return 1;
}

/** A picture {width, height, rgba} turned as its orientation says. */
export function upright({ width, height, rgba }, turn) {
  if (turn === 1) return { width, height, rgba };
  const swapped = turn >= 5;
  const [wide, high] = swapped ? [height, width] : [width, height];
  const fromRight = [2, 3, 7, 8].includes(turn); // of the stored picture, for the first column or row
  const fromBelow = [3, 4, 6, 7].includes(turn);
  const before = new Uint32Array(rgba.buffer, rgba.byteOffset, width * height);
  const after = new Uint32Array(width * height);
  for (let y = 0, at = 0; y < high; y++) {
    for (let x = 0; x < wide; x++, at++) {
      const column = swapped ? y : x;
      const row = swapped ? x : y;
      after[at] = before[(fromBelow ? height - 1 - row : row) * width + (fromRight ? width - 1 - column : column)];
    }
  }
  return { width: wide, height: high, rgba: new Uint8ClampedArray(after.buffer) };
}
