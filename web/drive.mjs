// Uses the page of `segformer serve` as a person would, for tests.
//
//   node drive.mjs JOB.json
//
// The job: {url, webgpu, camera, page: {viewport, colorScheme, …}, change, steps: [{do: "drop", file: "a.png"}, …]}.
// Prints JSON: {states, requests, problems}: what the page says after each step, every address that was asked for, and
// what the browser complained of; of a page that is not ours (`plain`), no states. `change` is [script, before, after]: a script of the page that gets another text.
import { readFile, writeFile } from "node:fs/promises";
import { launch } from "./browser.mjs";

const job = JSON.parse(await readFile(process.argv[2], "utf-8"));
const camera = ["--use-fake-device-for-media-stream", ...(job.camera === "allowed" ? ["--use-fake-ui-for-media-stream"] : [])];
const browser = await launch({ webgpu: job.webgpu, args: job.camera ? camera : [] });

const idle = (page) => page.waitForFunction(() => document.body.getAttribute("aria-busy") === "false", null, { timeout: 120_000 });

/** A DataTransfer in the page that holds files. */
async function transfer(page, files) {
  const input = await page.evaluateHandle(() => Object.assign(document.createElement("input"), { type: "file", multiple: true }));
  await input.setInputFiles(files);
  return page.evaluateHandle((from) => {
    const made = new DataTransfer();
    for (const file of from.files) made.items.add(file);
    return made;
  }, input);
}

const filesOf = (step) => [step.file ?? step.files ?? []].flat();

const actions = {
  async open(page) {
    await page.goto(job.url);
  },
  async drop(page, step) {
    await page.dispatchEvent("#stage", "drop", { dataTransfer: await transfer(page, filesOf(step)) });
  },
  async paste(page, step) {
    const data = await transfer(page, filesOf(step));
    await page.evaluate((clipboardData) => document.dispatchEvent(new ClipboardEvent("paste", { clipboardData })), data);
  },
  async pick(page, step) {
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click(step.button ?? "#choose")]);
    await chooser.setFiles(filesOf(step));
  },
  async click(page, step) {
    await page.click(step.on);
  },
  async press(page, step) {
    for (const key of step.keys) await page.keyboard.press(key);
  },
  async give(page, step) {
    await page.locator(step.on).setInputFiles(filesOf(step));
  },
  async text(page, step) {
    await page.locator(step.on, { hasText: step.text }).waitFor({ timeout: 60_000 });
  },
  async focus(page, step) {
    await page.focus(step.on);
  },
  async point(page, step) {
    const box = await page.locator("#photo").boundingBox();
    await page.mouse.move(box.x + step.x * box.width, box.y + step.y * box.height);
  },
  async opacity(page, step) {
    await page.locator("#opacity").fill(String(step.value));
  },
  async save(page, step) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`#save-${step.what}`)]);
    await download.saveAs(step.to);
    return { saved: download.suggestedFilename() };
  },
  async engine(page) {
    await page.waitForFunction(() => !document.getElementById("engine").textContent.endsWith("…"), null, { timeout: 120_000 });
  },
  async shown(page) {
    await page.waitForSelector("#legend li", { timeout: 60_000 });
  },
  async pixels(page, step) {
    const data = await transfer(page, filesOf(step));
    const [size, url] = await page.evaluate(async ({ files: [file] }) => {
      const { decodeImage } = await import("/decode.js");
      const { width, height, rgba } = await decodeImage(file, null);
      const reader = new FileReader();
      const read = new Promise((resolve) => reader.addEventListener("load", resolve));
      reader.readAsDataURL(new Blob([rgba]));
      await read;
      return [[height, width], reader.result];
    }, data);
    await writeFile(step.to, Buffer.from(url.slice(url.indexOf(",") + 1), "base64"));
    return { size };
  },
  async evaluate(page, step) {
    return { value: await page.evaluate(step.script) };
  },
  async shot(page, step) {
    await page.screenshot({ path: step.to, fullPage: true });
  },
};

const state = () => {
  const text = (id) => {
    const found = document.getElementById(id);
    return found.hidden ? "" : found.textContent.trim();
  };
  const rows = (selector) => [...document.querySelectorAll(selector)].map((row) => row.innerText.split(/\s*\n\s*/).filter(Boolean));
  const result = !document.getElementById("result").hidden;
  const texts = ["status", "problem", "model", "terms", "engine", "pointed"].map((id) => [id, text(id)]);
  const label = document.getElementById("view").getAttribute("aria-label");
  return { ...Object.fromEntries(texts), label, legend: rows("#legend li"), speed: rows("#speed div"), result };
};

try {
  const context = await browser.newContext({ acceptDownloads: true, ...job.page });
  const page = await context.newPage();
  const requests = [];
  const problems = [];
  context.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  if (job.change) {
    const [script, before, after] = job.change;
    await context.route(`**/${script}`, async (route) => {
      const response = await route.fetch();
      const text = await response.text();
      if (!text.includes(before)) throw new Error(`${script} has no ${before}`);
      await route.fulfill({ response, body: text.replace(before, after) });
    });
  }
  const states = [];
  for (const step of [{ do: "open" }, ...job.steps]) {
    const start = performance.now();
    const more = await actions[step.do](page, step);
    if (!step.hasty && !job.plain) await idle(page);
    states.push({ ...(job.plain ? {} : await page.evaluate(state)), ...more, seconds: (performance.now() - start) / 1000 });
  }
  console.log(JSON.stringify({ states, requests, problems }));
} finally {
  await browser.close();
}
