import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vite";

const BUNDLED = ["wavesurfer.js", "@fontsource-variable/inter"];

/** What the built files were made of, so that a test can tell whether they are still that. */
function sources(folder = ".") {
  const skipped = new Set(["node_modules", ".vite"]);
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !skipped.has(entry.name))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? sources(path) : [path];
    })
    .sort();
}

function digest() {
  const hash = createHash("sha256");
  for (const path of sources()) {
    hash.update(`${path.replaceAll("\\", "/")}\0`).update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

const provenance = {
  name: "provenance",
  generateBundle() {
    const notices = BUNDLED.map((name) => {
      const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
      const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
      return `${name} ${version} (${license})\n\n${text}\n`;
    });
    this.emitFile({ type: "asset", fileName: "licences.txt", source: notices.join("\n\n") });
    this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${digest()}\n` });
  },
};

export default defineConfig({
  base: "/",
  build: {
    outDir: "../src/tonewood/studio/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    // light-dark() as it is: browsers of 2024 and later know it.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
  },
  plugins: [provenance],
});
