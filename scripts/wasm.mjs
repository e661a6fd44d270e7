// Compiles the crate to build/: the wasm and the JavaScript that wasm-bindgen makes for it; and beside
// them the policy, as isolates load it. wrangler runs this before every bundle (see `[build]` in
// wrangler.toml), so that a deploy with a wrong or an old policy or an old wasm cannot happen.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkPolicy, compilePolicy } from "./check.mjs";
import { fingerprint, isMadeFrom, markAsMadeFrom } from "./fingerprint.mjs";
import { cargoTool, inProject, npmProgram, WASM_TARGET } from "./project.mjs";
import { rustTools } from "./setup.mjs";
import { main, step } from "./step.mjs";

const INPUTS = ["src", "places", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "scripts/project.mjs", "scripts/wasm.mjs"];

// These are bundled beside the wasm, not compiled into it.
const BESIDE = ["src/entry.mjs", "src/openapi.json"];
const matters = (path) => !BESIDE.includes(path);

// What workerd is known to run: what rustc and wasm-bindgen use, and nothing newer of wasm-opt's own.
const FEATURES = [
  "bulk-memory",
  "exception-handling",
  "multivalue",
  "mutable-globals",
  "nontrapping-float-to-int",
  "reference-types",
  "sign-ext",
].map((feature) => `--enable-${feature}`);

// For the fewest gzipped bytes, which is what an isolate loads. What is skipped would make fewer bytes
// that compress worse; functions of like names are of like code, and compress best beside each other.
const SMALL = ["-Oz", "--skip-pass=inlining-optimizing", "--skip-pass=local-cse", "--reorder-functions-by-name"];

// A panic's message has its file and line without names.
const STRIPPED = ["--strip-debug", "--strip-producers", "--strip-target-features"];

export async function buildWasm() {
  await checkPolicy();
  mkdirSync(inProject("build"), { recursive: true });
  writeFileSync(inProject("build", "policy.cbor"), compilePolicy(readFileSync(inProject("policy.toml"))));
  const inputs = fingerprint(INPUTS, matters);
  if (isMadeFrom("build", inputs)) return;
  await compile();
  await bindToJavaScript();
  await shrink();
  markAsMadeFrom("build", inputs);
}

function compile() {
  // Panics name their file: the same one, and as many bytes, on every machine.
  const sources = join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "registry", "src");
  return step(
    "Compile to WebAssembly (a minute or two the first time)",
    "cargo",
    ["build", "--quiet", "--lib", "--release", "--target", WASM_TARGET, "--target-dir", inProject("target")],
    {
      env: { CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS: `--remap-path-prefix=${sources}/=` },
      otherwise: "The compiler's words are above.",
    },
  );
}

async function bindToJavaScript() {
  const wasm = inProject("target", WASM_TARGET, "release", "tollgate.wasm");
  await step(
    "Bind it to JavaScript",
    cargoTool("wasm-bindgen").program,
    [
      wasm,
      ...["--out-dir", inProject("build"), "--out-name", "index", "--target", "module", "--no-typescript"],
      // Lets `edge.rs` say what follows a trap.
      "--force-enable-abort-handler",
    ],
    { otherwise: "wasm-bindgen's words are above." },
  );
  // Every import of a wasm is one of its source to wrangler, which does not know the word yet.
  const glue = inProject("build", "index.js");
  writeFileSync(glue, readFileSync(glue, "utf8").replace("import source ", "import "));
}

async function shrink() {
  const wasm = inProject("build", "index_bg.wasm");
  await step("Make it small (half a minute)", npmProgram("wasm-opt"), ["-g", ...FEATURES, ...SMALL, wasm, "-o", wasm], {
    otherwise: "wasm-opt's words are above.",
  });
  await step("Strip the names", npmProgram("wasm-opt"), [...FEATURES, ...STRIPPED, wasm, "-o", wasm], {
    otherwise: "wasm-opt's words are above.",
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await rustTools();
    await buildWasm();
  });
}
