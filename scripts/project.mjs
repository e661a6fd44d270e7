// Where things are, and which tools build them. Everything that is installed lands inside the
// project, in folders that git ignores.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

export const inProject = (...parts) => join(root, ...parts);

export const WASM_TARGET = "wasm32-unknown-unknown";

// Cargo.toml pins the library to the same version.
export const cargoTools = [{ name: "wasm-bindgen", crate: "wasm-bindgen-cli", version: "0.2.129", minutes: 3 }];

export function cargoTool(name) {
  const tool = cargoTools.find((tool) => tool.name === name);
  const installRoot = inProject(".tools", `${tool.crate}-${tool.version}`);
  return { ...tool, installRoot, program: join(installRoot, "bin", name) };
}

// Asked by `npm run supply` where somebody has installed it: nothing else waits for the quarter of an hour that it takes.
const denyVersion = "0.20.2";
const denyRoot = `.tools/cargo-deny-${denyVersion}`;
export const cargoDeny = {
  program: inProject(denyRoot, "bin", "cargo-deny"),
  install: `cargo install cargo-deny@${denyVersion} --locked --root ${denyRoot}`,
};

export const npmProgram = (name) => inProject("node_modules", ".bin", name);

// What the tests preload into workerd.
const preloaded = (name) => ({
  source: inProject("tests", "e2e", "harness", `${name}.c`),
  library: inProject(".tools", `${name}.so`),
});

export const movedClock = preloaded("moved_clock");

export const failingDisk = preloaded("failing_disk");

// What tests/core/differential.rs writes and tests/faults/differential.test.mjs reads.
export const histories = inProject("target", "histories.jsonl");

const schemathesisFolder = inProject(".tools", "schemathesis");

export const schemathesis = {
  folder: schemathesisFolder,
  program: join(schemathesisFolder, "bin", "schemathesis"),
  settings: inProject("tests", "e2e", "schemathesis"),
  requirements: inProject("tests", "e2e", "schemathesis", "requirements.txt"),
  // A copy of the requirements, written when all of them are there.
  installed: join(schemathesisFolder, "requirements.txt"),
};

export function rustChannel() {
  const file = readFileSync(inProject("rust-toolchain.toml"), "utf8");
  return /^channel\s*=\s*"(.+)"/m.exec(file)[1];
}
