// Fetches what the build and the tests need, each step only when it is missing. Runs on a machine that
// has rustup, a C compiler and Node.js 20, before any package is installed: Node built-ins only.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  cargoTool,
  cargoTools,
  failingDisk,
  inProject,
  movedClock,
  npmProgram,
  rustChannel,
  schemathesis,
  WASM_TARGET,
} from "./project.mjs";
import { ENDING_SIGNALS, Failure, main, outputOf, say, step } from "./step.mjs";

const NETWORK = "Is the network there? Running the same command again goes on where it stopped.";

// wrangler and miniflare want it; the dev dependency `node` brings it where the machine has an older one.
const NODE_MAJOR = 22;

export async function setUp({ forTests = false } = {}) {
  await rustTools();
  await npmPackages();
  if (forTests) await preloadedLibraries();
}

// What tests the gateway against its description: in a virtual environment, where the machine has Python.
export async function schemathesisTool() {
  const { folder, requirements, installed } = schemathesis;
  if (isSchemathesisThere()) return;
  if (outputOf("python3", ["-c", "import ensurepip, sys, venv; assert sys.version_info >= (3, 10)"]) === null) {
    return say("▸ schemathesis is left out: it needs python3 (3.10 or newer) with venv");
  }
  try {
    await step("schemathesis, a virtual environment for it in .tools/", "python3", ["-m", "venv", "--clear", folder]);
    const pip = join(folder, "bin", "pip");
    const quietly = ["--quiet", "--disable-pip-version-check", "--no-input"];
    await step("schemathesis (half a minute)", pip, ["install", ...quietly, "--requirement", requirements]);
    copyFileSync(requirements, installed);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    say(`▸ schemathesis is left out: ${error.message} ${NETWORK}`);
  }
}

// Whether it is there, and is the one that the requirements name.
export function isSchemathesisThere() {
  const { requirements, installed } = schemathesis;
  return existsSync(installed) && readFileSync(installed, "utf8") === readFileSync(requirements, "utf8");
}

export async function rustTools() {
  await rust();
  for (const { name } of cargoTools) await cargoInstall(cargoTool(name));
}

export async function rust() {
  if (outputOf("rustup", ["--version"]) === null) {
    throw new Failure("rustup is missing: install it from https://rustup.rs, then run this again.");
  }
  if (outputOf("cc", ["--version"]) === null) {
    throw new Failure("A C compiler (`cc`) is missing: install gcc or clang, then run this again.");
  }
  const channel = rustChannel();
  const within = (...command) => outputOf("rustup", ["run", channel, ...command]);
  const target = within("rustc", "--target", WASM_TARGET, "--print", "target-libdir");
  const complete =
    target &&
    existsSync(target) &&
    within("cargo", "fmt", "--version") &&
    within("cargo", "clippy", "--version");
  if (complete) return;
  await step(
    `Rust ${channel} with the ${WASM_TARGET} target (about a minute)`,
    "rustup",
    [
      ..."toolchain install --profile minimal --component rustfmt --component clippy --target".split(" "),
      WASM_TARGET,
      channel,
    ],
    { otherwise: NETWORK },
  );
}

async function cargoInstall({ crate, version, minutes, installRoot, program }) {
  if (outputOf(program, ["--version"])?.includes(version)) return;
  await step(
    `${crate} ${version}, built into .tools/ (about ${minutes} minutes on 2 cores, once)`,
    "cargo",
    ["install", `${crate}@${version}`, "--locked", "--root", installRoot],
    { otherwise: NETWORK },
  );
}

async function npmPackages() {
  const node = npmProgram("node");
  if (packagesMatchLockfile() && outputOf(node, ["--version"])) return;
  await step("npm packages (about half a minute, 500 MB)", "npm", ["ci", "--no-audit", "--no-fund"], {
    otherwise: NETWORK,
  });
  if (outputOf(node, ["--version"]) === null) {
    throw new Failure(
      "npm did not run the install script of the package `node`: allow it (`npm config set ignore-scripts false`), remove node_modules and run this again.",
    );
  }
}

// npm keeps beside the packages what it installed; packages for other platforms are not among it.
function packagesMatchLockfile() {
  const installedFile = inProject("node_modules", ".package-lock.json");
  if (!existsSync(installedFile)) return false;
  const read = (path) => JSON.parse(readFileSync(path, "utf8")).packages;
  const installed = read(installedFile);
  return Object.entries(read(inProject("package-lock.json"))).every(
    ([path, { version, optional }]) =>
      path === "" || (optional && !installed[path]) || installed[path]?.version === version,
  );
}

async function preloadedLibraries() {
  if (process.platform !== "linux") {
    throw new Failure(
      "The end-to-end tests move workerd's clock with LD_PRELOAD, which needs Linux; `npm run dev` and `cargo test` do not.",
    );
  }
  for (const { source, library } of [movedClock, failingDisk]) {
    if (existsSync(library) && statSync(library).mtimeMs > statSync(source).mtimeMs) continue;
    await step(
      `What the tests preload: ${basename(library)} (a second)`,
      "cc",
      ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"],
      { otherwise: `The C compiler refused tests/e2e/harness/${basename(source)}.` },
    );
  }
}

// After set-up: goes on in this process where its Node.js is new enough, else in the project's own, and
// then ends as that one ends. Signals sent to this process reach the other.
export async function underProjectNode(run) {
  if (Number(process.versions.node.split(".")[0]) >= NODE_MAJOR) return run();
  const child = spawn(npmProgram("node"), process.argv.slice(1), { stdio: "inherit" });
  for (const signal of ENDING_SIGNALS) process.on(signal, () => child.kill(signal));
  const [code] = await once(child, "exit");
  process.exitCode = code ?? 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(() => setUp({ forTests: process.platform === "linux" }));
}
