// `npm run build`: makes in dist/ the very bundle that `wrangler deploy` uploads, which is also what
// `npm run dev` runs and what the end-to-end tests test.
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fingerprint, isMadeFrom, markAsMadeFrom } from "./fingerprint.mjs";
import { inProject, npmProgram } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { main, say, step } from "./step.mjs";
import { buildWasm } from "./wasm.mjs";

const INPUTS = [
  "build/index.js",
  "build/index_bg.wasm",
  "src/entry.mjs",
  "src/openapi.json",
  "policy.toml",
  "wrangler.toml",
  "package-lock.json",
];

export async function build() {
  await buildWasm();
  const inputs = fingerprint(INPUTS);
  if (isMadeFrom("dist", inputs)) return say("▸ dist/ is up to date");
  // File names in the bundle carry hashes: what an earlier build left would stay beside it.
  rmSync(inProject("dist"), { recursive: true, force: true });
  await step(
    "Bundle into dist/ (a few seconds)",
    npmProgram("wrangler"),
    ["deploy", "--dry-run", "--outdir", "dist"],
    { otherwise: "wrangler's words are above." },
  );
  markAsMadeFrom("dist", inputs);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await setUp();
    await underProjectNode(build);
  });
}
