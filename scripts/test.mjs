// `npm test`: everything that must hold before a change is merged.
// `npm run test:fast`: the core and a handful of end-to-end tests, for the minutes in between.
// `npm run test:e2e -- limits streaming`: only the end-to-end files with these names; all without a name.
// `npm run faults`, `npm run attacks`: those files in full, of which `npm test` runs a short form;
// `-- --seed N` for what is random, and names as above. `npm run soak -- --minutes N`: load for so long.
import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { build } from "./build.mjs";
import { checkPromises } from "./promises.mjs";
import { histories, inProject, npmProgram, WASM_TARGET } from "./project.mjs";
import { schemathesisTool, setUp, underProjectNode } from "./setup.mjs";
import { checkSupply } from "./supply.mjs";
import { Failure, main, say, step } from "./step.mjs";

const [mode = "--all", ...rest] = process.argv.slice(2);
const { values: options, positionals: names } = parseArgs({
  args: rest,
  options: { seed: { type: "string" }, minutes: { type: "string", default: "30" } },
  allowPositionals: true,
});

// The promises most worth a minute; the others run with `npm test`.
const FAST = ["call", "limits", "credits"];

const LINTS = ["--", "-D", "warnings"];
const cargo = (title, args, options) =>
  step(title, "cargo", args, { otherwise: "cargo's words are above.", ...options });

// The same dice for everyone, so that what is merged does not depend on luck: `cargo test` throws new ones.
const DICE = { PROPTEST_RNG_SEED: "20261122" };

async function rustTests() {
  const env = { ...DICE, ...process.env };
  await cargo("Unit tests, tables, properties, simulation", ["test", "--quiet"], { live: true, env });
}

async function fuzzedPolicies() {
  const CASES = 10_000;
  const env = { PROPTEST_CASES: CASES };
  await cargo(`Policies that are no policies, ${CASES} of each kind`, ["test", "--quiet", "--test", "policy", "reader_panic"], { env });
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

// What a folder of tests/ has, by the names that were given.
function filesIn(folder) {
  const files = readdirSync(inProject("tests", folder)).filter((file) => file.endsWith(".test.mjs"));
  return files.map((file) => inProject("tests", folder, file));
}

const named = (files) =>
  names.length === 0 ? files : files.filter((file) => names.includes(basename(file, ".test.mjs")));

// With TOLLGATE_FULL there is more to do, and time for it.
const LONGER = process.env.TOLLGATE_FULL ? 60 : 1;

// Two files at a time: each runs a workerd of its own. A test that hangs must not hang the run. Node holds
// each file as a whole to this limit, also where a test in it says that it takes longer.
async function nodeTests(title, files, { minutes = 8, atOnce = 2, timeout = 300_000, env = {} } = {}) {
  if (files.length === 0) throw new Failure(`There is no such file of tests: ${names.join(", ")}`);
  const has = (name) => files.some((file) => basename(file) === `${name}.test.mjs`);
  if (has("schemathesis")) await schemathesisTool();
  if (has("differential")) await writeHistories(env);
  await step(
    `${title}, ${files.length} files`,
    npmProgram("node"),
    ["--test", "--test-reporter=spec", `--test-concurrency=${atOnce}`, `--test-timeout=${timeout * LONGER}`, ...files],
    { live: true, timeout: minutes * LONGER * 60_000, env, otherwise: "The failing tests are listed above." },
  );
}

// Any seed gives other histories: the same ones in `npm test`.
async function writeHistories({ TOLLGATE_FULL, TOLLGATE_SEED = TOLLGATE_FULL ? Math.floor(Math.random() * 1_000_000) : 7 }) {
  const env = { TOLLGATE_HISTORIES: histories, TOLLGATE_COUNT: TOLLGATE_FULL ? 100 : 3, TOLLGATE_SEED };
  await cargo("Histories as the core carries them out", ["test", "--quiet", "--test", "core", "differential"], { env });
}

const endToEnd = (files) => nodeTests("End-to-end tests", files);

// One file at a time: what is measured is not measured beside others.
async function inFull(folder, { minutes = 60, env = {} } = {}) {
  const seed = options.seed === undefined ? {} : { TOLLGATE_SEED: options.seed };
  await build();
  await nodeTests(folder, named(filesIn(folder)), {
    minutes,
    atOnce: 1,
    timeout: minutes * 60_000,
    env: { TOLLGATE_FULL: "1", ...seed, ...env },
  });
}

const runs = {
  async "--all"() {
    await style();
    say("▸ Promises and the tests that they name");
    checkPromises();
    await rustTests();
    await docs();
    await types();
    say("▸ Licences and sources");
    await checkSupply();
    await build();
    await endToEnd(["e2e", "faults", "attacks"].flatMap(filesIn));
  },
  async "--fast"() {
    await rustTests();
    await build();
    await endToEnd(FAST.map((name) => inProject("tests", "e2e", `${name}.test.mjs`)));
  },
  async "--e2e"() {
    await build();
    await endToEnd(named(["e2e", "faults", "attacks"].flatMap(filesIn)));
  },
  "--faults": () => inFull("faults"),
  async "--attacks"() {
    await fuzzedPolicies();
    await inFull("attacks");
  },
  async "--soak"() {
    const { minutes } = options;
    if (!/^[1-9]\d{0,3}$/.test(minutes)) throw new Failure(`--minutes: expected a whole number, found ${minutes}`);
    await inFull("soak", { minutes: Number(minutes) + 5, env: { TOLLGATE_MINUTES: minutes } });
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
