// `npm test`: everything that must hold before a change is merged. `--fast`: the core and a handful of
// end-to-end tests, for the minutes in between.
import { readdirSync } from "node:fs";
import { build } from "./build.mjs";
import { inProject, npmProgram } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { main, say, step } from "./step.mjs";

const fast = process.argv.includes("--fast");

// The promises most worth a minute; the others run with `npm test`.
const FAST_FILES = ["harness.test.mjs"];

const WASM = ["--target", "wasm32-unknown-unknown"];
const LINTS = ["--", "-D", "warnings"];
const cargo = (title, args, options) => step(title, "cargo", args, { otherwise: "cargo's words are above.", ...options });

async function rustTests() {
  await cargo("Unit tests, tables, properties, simulation", ["test", "--quiet"], { live: true });
}

async function style() {
  await cargo("Format", ["fmt", "--check"], { otherwise: "`cargo fmt` mends it." });
  await cargo("Clippy for the host", ["clippy", "--quiet", "--all-targets", ...LINTS]);
  await cargo("Clippy for wasm", ["clippy", "--quiet", "--lib", ...WASM, ...LINTS]);
}

async function docs() {
  await cargo("Docs", ["doc", "--quiet", "--no-deps", "--document-private-items"], { env: { RUSTDOCFLAGS: "-D warnings" } });
}

async function endToEnd() {
  const all = readdirSync(inProject("tests", "e2e")).filter((name) => name.endsWith(".test.mjs"));
  const files = (fast ? FAST_FILES : all).map((name) => inProject("tests", "e2e", name));
  await step(
    `End-to-end tests, ${files.length} files`,
    npmProgram("node"),
    // Two files at a time: each runs a workerd of its own. A test that hangs must not hang the run.
    ["--test", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=120000", ...files],
    { live: true, otherwise: "The failing tests are listed above." },
  );
}

await main(async () => {
  const started = performance.now();
  await setUp({ forTests: true });
  await underProjectNode(async () => {
    if (!fast) await style();
    await rustTests();
    if (!fast) await docs();
    await build();
    await endToEnd();
    say(`\nAll well after ${Math.round((performance.now() - started) / 1000)} s.`);
  });
});
