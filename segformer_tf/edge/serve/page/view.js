// The picture with its mask over it, the point on it, and the legend.

const LARGEST_SIDE = 2048; // of the canvases; the mask behind them keeps the picture's size

const element = (id) => document.getElementById(id);

/** An element with a text and perhaps a class. */
function part(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function swatch([red, green, blue]) {
  const made = part("span", "", "swatch");
  made.style.background = `rgb(${red} ${green} ${blue})`;
  made.setAttribute("aria-hidden", "true");
  return made;
}

export const percent = (share) => (share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

/** Shares of the classes that occur, [{id, share}], the largest first. */
export function classShares(mask, classes) {
  const counts = new Array(classes).fill(0);
  for (const id of mask) counts[id]++;
  const shares = counts.map((count, id) => ({ id, share: count / mask.length }));
  return shares.filter(({ share }) => share).sort((a, b) => b.share - a.share || a.id - b.id);
}

/** Draws a result, and says the class at a point. */
export class View {
  constructor() {
    this.box = element("view");
    this.canvases = [element("photo"), element("mask")];
    this.point = null;
    this.box.addEventListener("pointermove", (event) => this.pointAt(event));
    this.box.addEventListener("pointerdown", (event) => this.pointAt(event));
    this.box.addEventListener("pointerleave", () => this.unpoint());
    this.box.addEventListener("blur", () => this.unpoint());
    this.box.addEventListener("keydown", (event) => this.step(event));
    this.setOpacity(element("opacity").valueAsNumber);
    element("opacity").addEventListener("input", ({ target }) => this.setOpacity(target.valueAsNumber));
  }

  setOpacity(percentage) {
    this.opacity = percentage / 100;
    this.canvases[1].style.opacity = this.opacity;
    element("opacity-value").textContent = `${percentage} %`;
  }

  /** Show a result of `Segmenter.segment` with its labels {names, colors}. */
  async show(result, labels, name) {
    const { picture, mask } = result;
    const shrink = Math.min(1, LARGEST_SIDE / Math.max(picture.width, picture.height));
    const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * shrink)));
    const whole = new ImageData(picture.rgba, picture.width, picture.height);
    const photo = await createImageBitmap(whole, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
    Object.assign(this, { result, labels });
    for (const canvas of this.canvases) Object.assign(canvas, { width, height });
    this.box.style.setProperty("--ratio", width / height);
    this.canvases[0].getContext("2d").drawImage(photo, 0, 0);
    photo.close();
    this.canvases[1].getContext("2d").putImageData(colored(mask, picture, labels.colors, width, height), 0, 0);
    this.box.hidden = false;
    element("empty").hidden = true;
    const shares = classShares(mask, labels.names.length);
    this.box.setAttribute("aria-label", `${name}: ${shares.map((each) => this.named(each)).join(", ")}`);
    element("legend").replaceChildren(
      ...shares.map(({ id, share }) => {
        const row = document.createElement("li");
        row.append(swatch(labels.colors[id]), part("span", labels.names[id]), part("span", percent(share), "number"));
        return row;
      }),
    );
    this.tell();
    return shares;
  }

  named({ id, share }) {
    return `${this.labels.names[id]} ${percent(share)}`;
  }

  pointAt({ clientX, clientY, target }) {
    if (!this.result) return;
    const box = this.canvases[0].getBoundingClientRect();
    const place = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    if (target === this.box && place.some((share) => share < 0 || share >= 1)) this.unpoint();
    else this.move(place);
  }

  step(event) {
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (right === undefined || !this.result) return;
    event.preventDefault();
    const far = event.shiftKey ? 0.1 : 0.02;
    const [x, y] = this.point ?? [0.5 - right * far, 0.5 - down * far]; // the first key puts it into the middle
    this.move([x + right * far, y + down * far]);
    const [photo, box] = [this.canvases[0].getBoundingClientRect(), this.box.getBoundingClientRect()];
    const cross = element("cross");
    cross.hidden = false;
    cross.style.left = `${photo.left - box.left + this.point[0] * photo.width}px`;
    cross.style.top = `${photo.top - box.top + this.point[1] * photo.height}px`;
  }

  move(place) {
    this.point = place.map((share) => Math.min(Math.max(share, 0), 1 - 1e-9));
    element("cross").hidden = true;
    this.tell();
  }

  unpoint() {
    this.point = null;
    element("cross").hidden = true;
    this.tell();
  }

  /** Say the class at the point. */
  tell() {
    const output = element("pointed");
    if (!this.point || !this.result) {
      output.replaceChildren();
      return;
    }
    const { picture, mask } = this.result;
    const x = Math.floor(this.point[0] * picture.width);
    const y = Math.floor(this.point[1] * picture.height);
    const id = mask[y * picture.width + x];
    output.replaceChildren(swatch(this.labels.colors[id]), `${this.labels.names[id]} at ${x}, ${y}`);
  }

  /** The mask's colors over the picture, by the opacity: (height, width, 3) RGB. */
  overlay() {
    const { picture, mask } = this.result;
    const rgb = new Uint8Array(mask.length * 3);
    for (let i = 0; i < mask.length; i++) {
      const color = this.labels.colors[mask[i]];
      for (let c = 0; c < 3; c++) {
        rgb[3 * i + c] = Math.round(picture.rgba[4 * i + c] * (1 - this.opacity) + color[c] * this.opacity);
      }
    }
    return rgb;
  }
}

/** A mask in its colors, at the canvas' size. */
function colored(mask, picture, colors, width, height) {
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const table = colors.map((color) => new Uint32Array(new Uint8Array([...color, 255]).buffer)[0]);
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * picture.height) / height) * picture.width;
    for (let x = 0; x < width; x++, at++) {
      words[at] = table[mask[row + Math.floor(((x + 0.5) * picture.width) / width)]];
    }
  }
  return image;
}
