// `npm test`: everything that must hold before a change is merged.
// `npm run test:fast`: the core and a handful of end-to-end tests, for the minutes in between.
// `npm run test:e2e -- limits streaming`: only the end-to-end files with these names; all without a name.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { build } from "./build.mjs";
import { inProject, npmProgram, WASM_TARGET } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { main, say, step } from "./step.mjs";

const [mode = "--all", ...names] = process.argv.slice(2);

// The promises most worth a minute; the others run with `npm test`.
const FAST = ["call", "limits", "credits"];

const LINTS = ["--", "-D", "warnings"];
const cargo = (title, args, options) =>
  step(title, "cargo", args, { otherwise: "cargo's words are above.", ...options });

async function rustTests() {
  await cargo("Unit tests, tables, properties, simulation", ["test", "--quiet"], { live: true });
}

async function style() {
  await cargo("Format", ["fmt", "--check"], { otherwise: "`cargo fmt` mends it." });
  await cargo("Clippy for the host", ["clippy", "--quiet", "--all-targets", ...LINTS]);
  await cargo("Clippy for wasm", ["clippy", "--quiet", "--lib", "--target", WASM_TARGET, ...LINTS]);
}

// The command line, and a program in the tests, on the client that src/openapi.json describes.
async function types() {
  const client = inProject("cli", "api.d.ts");
  await step("Types of the client", npmProgram("openapi-typescript"), [inProject("src", "openapi.json"), "-o", client], {
    otherwise: "openapi-typescript cannot read src/openapi.json.",
  });
  await step("Types of what uses it", npmProgram("tsc"), ["-p", inProject("cli")], {
    otherwise: "tsc's words are above.",
  });
}

async function docs() {
  await cargo("Docs", ["doc", "--quiet", "--no-deps", "--document-private-items"], {
    env: { RUSTDOCFLAGS: "-D warnings" },
  });
}

async function endToEnd(chosen) {
  const folder = inProject("tests", "e2e");
  const all = readdirSync(folder).filter((file) => file.endsWith(".test.mjs"));
  const files = chosen.length > 0 ? chosen.map((name) => `${name}.test.mjs`) : all;
  await step(
    `End-to-end tests, ${files.length} files`,
    npmProgram("node"),
    // Two files at a time: each runs a workerd of its own. A test that hangs must not hang the run.
    [
      "--test",
      "--test-reporter=spec",
      "--test-concurrency=2",
      "--test-timeout=60000",
      ...files.map((file) => join(folder, file)),
    ],
    { live: true, timeout: 6 * 60_000, otherwise: "The failing tests are listed above." },
  );
}

const runs = {
  async "--all"() {
    await style();
    await rustTests();
    await docs();
    await types();
    await build();
    await endToEnd([]);
  },
  async "--fast"() {
    await rustTests();
    await build();
    await endToEnd(FAST);
  },
  async "--e2e"() {
    await build();
    await endToEnd(names);
  },
};

await main(async () => {
  const started = performance.now();
  await setUp({ forTests: true });
  await underProjectNode(async () => {
    await runs[mode]();
    say(`\nAll well after ${Math.round((performance.now() - started) / 1000)} s.`);
  });
});
