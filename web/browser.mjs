// Chromium without a window, for the tests and measurements of this folder.
import { existsSync } from "node:fs";

// WebGPU without a GPU: SwiftShader, which comes with Chromium.
const WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan,WebGPU",
  "--use-vulkan=swiftshader",
  "--ignore-gpu-blocklist",
];

/** Start Chromium, of the variable CHROMIUM or Debian's; `webgpu` gives it SwiftShader. */
export async function launch({ webgpu = false, args = [] } = {}) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) {
    throw new Error(`needs Chromium: apt-get install chromium, or set CHROMIUM. Received: ${executablePath}`);
  }
  const { chromium } = await import("playwright-core").catch(() => {
    throw new Error("needs its packages: npm ci, in web/");
  });
  const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : []; // Chromium refuses one to root
  return chromium.launch({ executablePath, args: [...sandbox, ...(webgpu ? WEBGPU : []), ...args] });
}
