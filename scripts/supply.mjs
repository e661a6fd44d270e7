// `npm run supply`: whose work this stands on, by licence and source, and whether all of it may: what the crates
// may be says deny.toml. `npm test` does the same without a network. Where cargo-deny is installed, it has its say as
// well; advisories are looked at where they can be had, and where they cannot, that is said.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { cargoDeny, inProject, root, WASM_TARGET } from "./project.mjs";
import { setUp, underProjectNode } from "./setup.mjs";
import { Failure, main, outputOf, say, step } from "./step.mjs";

const CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index";
// Tools that build and test, of which nothing is deployed.
const ALSO_FOR_TOOLS = ["0BSD", "CC0-1.0", "ISC", "LGPL-3.0-or-later", "Python-2.0", "Unlicense"];

export async function checkSupply() {
  const { parse } = await import("smol-toml");
  const { allow } = parse(readFileSync(inProject("deny.toml"), "utf8")).licenses;
  const mistakes = [...checkCrates(new Set(allow)), ...checkPackages(new Set([...allow, ...ALSO_FOR_TOOLS]))];
  if (mistakes.length > 0) throw new Failure(mistakes.join("\n  "));
  const deny = denyProgram();
  if (deny === null) return say(`  not asked: cargo-deny, which is not installed (${cargoDeny.install})`);
  await step("cargo deny: licences, bans, sources", deny, ["--offline", "check", "licenses", "bans", "sources"], DENIED);
}

const DENIED = { otherwise: "cargo deny's words are above." };

const denyProgram = () => [cargoDeny.program, "cargo-deny"].find((program) => outputOf(program, ["--version"]) !== null) ?? null;

// What is known to be wrong with any of it, as far as somebody can be asked.
export async function checkAdvisories() {
  const deny = denyProgram();
  if (deny === null) say("  not looked at: advisories about crates, since cargo-deny is not installed");
  else if (outputOf(deny, ["fetch", "db"]) === null) say("  not looked at: advisories about crates, since their database cannot be fetched here");
  else await step("cargo deny: advisories", deny, ["check", "--disable-fetch", "advisories"], DENIED);

  const { stdout } = spawnSync("npm", ["audit", "--json"], { cwd: root, encoding: "utf8" });
  const { vulnerabilities, metadata, message } = JSON.parse(stdout || "{}");
  if (!metadata) return say(`  not looked at: advisories about npm packages, since the registry does not tell (${message ?? "no answer"})`);
  const found = Object.values(vulnerabilities).map(({ name, severity, range }) => `${name} ${range}: ${severity}, by npm audit`);
  if (found.length > 0) throw new Failure(found.join("\n  "));
  say(`  npm audit: nothing about ${metadata.dependencies.total} packages`);
}

function checkCrates(allowed) {
  const told = outputOf("cargo", ["metadata", "--locked", "--format-version", "1"]);
  if (told === null) throw new Failure("`cargo metadata --locked` failed: is Cargo.lock up to date?");
  const crates = JSON.parse(told).packages.filter(({ source }) => source !== null);
  const tree = outputOf("cargo", ["tree", "--locked", "--target", WASM_TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
  const deployed = new Set((tree ?? "").split("\n").map((line) => line.split(" ")[0]));
  tell("crates", crates.map(({ license }) => license), `${crates.filter(({ name }) => deployed.has(name)).length} of them in what is deployed`);
  const locked = readFileSync(inProject("Cargo.lock"), "utf8").split("[[package]]");
  return [
    ...crates.filter(({ license }) => !isAllowed(license, allowed)).map(({ name, license }) => `${name}: the licence ${license} is not in deny.toml`),
    ...crates.filter(({ source }) => source !== CRATES_IO).map(({ name, source }) => `${name} comes from ${source}`),
    ...locked.filter((lines) => /^source = /m.test(lines) && !/^checksum = "[0-9a-f]{64}"/m.test(lines)).map((lines) => `no checksum in Cargo.lock:${lines.trimEnd()}`),
  ];
}

function checkPackages(allowed) {
  const { packages } = JSON.parse(readFileSync(inProject("package-lock.json"), "utf8"));
  const { allowScripts } = JSON.parse(readFileSync(inProject("package.json"), "utf8"));
  const theirs = Object.entries(packages).filter(([path]) => path !== "");
  tell("npm packages", theirs.map(([, { license }]) => license), "tools alone");
  return theirs.flatMap(([path, { license, integrity, resolved, hasInstallScript }]) => {
    const name = path.split("node_modules/").at(-1);
    return [
      ...(isAllowed(license, allowed) ? [] : [`${path}: the licence ${license} is not allowed`]),
      ...(integrity?.startsWith("sha512-") ? [] : [`${path}: no checksum in package-lock.json`]),
      ...(resolved === undefined || resolved.startsWith("https://registry.npmjs.org/") ? [] : [`${path} comes from ${resolved}`]),
      ...(hasInstallScript && !allowScripts[name] ? [`${path} has an install script that package.json does not allow`] : []),
    ];
  });
}

function tell(what, licences, more) {
  const counts = new Map();
  for (const licence of licences) counts.set(licence, (counts.get(licence) ?? 0) + 1);
  say(`  ${licences.length} ${what}, ${more}`);
  for (const [licence, count] of [...counts].sort((a, b) => b[1] - a[1])) say(`    ${String(count).padStart(4)} ${licence}`);
}

// An SPDX expression: one of the alternatives, each part of it.
function isAllowed(expression = "", allowed) {
  const words = expression.replaceAll("/", " OR ").match(/[()]|[^\s()]+/g) ?? [];
  const either = () => {
    let holds = both();
    while (words[0] === "OR") {
      words.shift();
      // Read either way.
      holds = both() || holds;
    }
    return holds;
  };
  const both = () => {
    let holds = one();
    while (words[0] === "AND") {
      words.shift();
      holds = one() && holds;
    }
    return holds;
  };
  const one = () => {
    const word = words.shift();
    if (word !== "(") return allowed.has(word);
    const holds = either();
    words.shift();
    return holds;
  };
  return either() && words.length === 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await setUp();
    await underProjectNode(async () => {
      say("▸ Licences and sources");
      await checkSupply();
      say("▸ Advisories");
      await checkAdvisories();
    });
  });
}
