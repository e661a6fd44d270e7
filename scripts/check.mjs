// `npm run check [FILE]`: names every mistake in a policy, with its place and what was expected.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { inProject } from "./project.mjs";
import { rust } from "./setup.mjs";
import { Failure, main, step } from "./step.mjs";

export async function checkPolicy(file = "policy.toml") {
  await step(
    `Check ${file} (half a minute the first time)`,
    "cargo",
    ["run", "--quiet", "--target-dir", inProject("target"), "--bin", "check", "--", file],
    { live: true, otherwise: "Mend the policy as told above." },
  );
}

// What an isolate loads of a policy's text. The checker must have been built, as `checkPolicy` does.
export function compilePolicy(text) {
  const checker = inProject("target", "debug", "check");
  const { status, stdout, stderr, error } = spawnSync(checker, ["--compile"], { input: text });
  if (status !== 0) throw new Failure(error?.message ?? `The policy is wrong.\n${stderr}`.trimEnd());
  return stdout;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await rust();
    await checkPolicy(process.argv[2]);
  });
}
