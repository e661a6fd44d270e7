// Tells whether an output is still what its inputs would make: a hash over the inputs' paths and
// contents, kept beside the output.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inProject } from "./project.mjs";

const KEPT_IN = "inputs.sha256";

export function fingerprint(paths, matters = () => true) {
  const hash = createHash("sha256");
  for (const path of paths.flatMap(filesOf).filter(matters)) {
    hash.update(`${path}\0`).update(readFileSync(inProject(path)));
  }
  return hash.digest("hex");
}

export function isMadeFrom(outputFolder, expected) {
  const file = inProject(outputFolder, KEPT_IN);
  return existsSync(file) && readFileSync(file, "utf8") === expected;
}

export function markAsMadeFrom(outputFolder, made) {
  writeFileSync(inProject(outputFolder, KEPT_IN), made);
}

function filesOf(path) {
  if (!statSync(inProject(path)).isDirectory()) return [path];
  return readdirSync(inProject(path))
    .sort()
    .flatMap((name) => filesOf(join(path, name)));
}
