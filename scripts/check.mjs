// `npm run check [FILE]`: names every mistake in a policy, with its place and what was expected.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { inProject } from "./project.mjs";
import { rust } from "./setup.mjs";
import { main, say, step } from "./step.mjs";

export async function checkPolicy(file = "policy.toml") {
  if (!existsSync(inProject("src", "bin", "check.rs"))) {
    return say("▸ No policy checker yet: src/bin/check.rs is missing");
  }
  await step(`Check ${file} (half a minute the first time)`, "cargo", ["run", "--quiet", "--bin", "check", "--", file], {
    live: true,
    otherwise: "Mend the policy as told above.",
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await rust();
    await checkPolicy(process.argv[2]);
  });
}
