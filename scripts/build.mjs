// `npm run build`: makes in dist/ the very bundle that `wrangler deploy` uploads, which is also what
// `npm run dev` runs and what the end-to-end tests test, and weighs it.
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { fingerprint, isMadeFrom, markAsMadeFrom } from "./fingerprint.mjs";
import { inProject, npmProgram } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { Failure, main, say, step } from "./step.mjs";
import { buildWasm } from "./wasm.mjs";

const INPUTS = [
  "build/index.js",
  "build/index_bg.wasm",
  "src/entry.mjs",
  "build/policy.cbor",
  "build/openapi.json",
  "wrangler.toml",
  "package-lock.json",
];

// Bytes that an isolate loads, gzipped. The goal is 200,000; what needs more than this must be worth it.
const BUDGET = 735_000;

// In dist/, but not part of what is uploaded.
const NOT_DEPLOYED = ["README.md", "entry.js.map", "inputs.sha256"];

export async function build() {
  await buildWasm();
  const inputs = fingerprint(INPUTS);
  if (isMadeFrom("dist", inputs)) {
    say("▸ dist/ is up to date");
    return weigh();
  }
  // File names in the bundle carry hashes: what an earlier build left would stay beside it.
  rmSync(inProject("dist"), { recursive: true, force: true });
  await step(
    "Bundle into dist/ (a few seconds)",
    npmProgram("wrangler"),
    ["deploy", "--dry-run", "--outdir", "dist"],
    { otherwise: "wrangler's words are above." },
  );
  markAsMadeFrom("dist", inputs);
  weigh();
}

// The same bytes on every machine, so a budget can hold them.
function weigh() {
  const deployed = readdirSync(inProject("dist")).filter((name) => !NOT_DEPLOYED.includes(name));
  const weights = deployed.map((name) => {
    const bytes = readFileSync(inProject("dist", name));
    return { name, bytes: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
  });
  const kilobytes = (bytes) => `${(bytes / 1_000).toFixed(1)} kB`;
  for (const { name, bytes, gzipped } of weights) {
    // wrangler puts a hash before the names of modules.
    say(`  ${name.replace(/^[0-9a-f]{40}-/, "")}: ${kilobytes(bytes)}, gzipped ${kilobytes(gzipped)}`);
  }
  const sum = weights.reduce((sum, { gzipped }) => sum + gzipped, 0);
  const told = `${kilobytes(sum)} gzipped in all, of ${kilobytes(BUDGET)}`;
  if (sum > BUDGET) throw new Failure(`dist/ is too heavy: ${told} (BUDGET in scripts/build.mjs).`);
  say(`  ${told}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await setUp();
    await underProjectNode(build);
  });
}
