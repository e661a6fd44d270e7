// Compiles the crate to build/: the wasm and the JavaScript that wasm-bindgen makes for it. wrangler runs
// this before every bundle (see `[build]` in wrangler.toml), so that a deploy with a wrong policy or an
// old wasm cannot happen.
import { fileURLToPath } from "node:url";
import { checkPolicy } from "./check.mjs";
import { fingerprint, isMadeFrom, markAsMadeFrom } from "./fingerprint.mjs";
import { cargoTool, inProject, npmProgram } from "./project.mjs";
import { rustTools } from "./setup.mjs";
import { main, step } from "./step.mjs";

const INPUTS = ["src", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "scripts/project.mjs", "scripts/wasm.mjs"];

// These are bundled beside the wasm, not compiled into it.
const BESIDE = ["src/entry.mjs", "src/openapi.json"];
const matters = (path) => !BESIDE.includes(path);

export async function buildWasm() {
  await checkPolicy();
  const inputs = fingerprint(INPUTS, matters);
  if (isMadeFrom("build", inputs)) return;
  await step(
    "Compile to WebAssembly (a minute or two the first time)",
    cargoTool("worker-build").program,
    ["--release"],
    {
      // Without these worker-build would download the three itself.
      env: {
        WASM_BINDGEN_BIN: cargoTool("wasm-bindgen").program,
        WASM_OPT_BIN: npmProgram("wasm-opt"),
        ESBUILD_BIN: npmProgram("esbuild"),
      },
      otherwise: "The compiler's words are above.",
    },
  );
  // worker-build keeps the functions' names: an eighth of what every isolate would load. A panic's message
  // has its file and line without them.
  const wasm = inProject("build", "index_bg.wasm");
  await step("Strip the names", npmProgram("wasm-opt"), ["--strip-debug", "--strip-producers", wasm, "-o", wasm], {
    otherwise: "wasm-opt's words are above.",
  });
  markAsMadeFrom("build", inputs);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await rustTools();
    await buildWasm();
  });
}
