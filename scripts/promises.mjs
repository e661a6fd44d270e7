// Every invariant of ARCHITECTURE.md and every row of SECURITY.md names a test, and each test that is named is there.
import { readFileSync, readdirSync } from "node:fs";
import { inProject } from "./project.mjs";
import { Failure, say } from "./step.mjs";

const TESTS = { e2e: "tests/e2e", faults: "tests/faults", attacks: "tests/attacks" };

export function checkPromises() {
  const files = new Map(
    ["src", "tests", "scripts"].flatMap((folder) =>
      readdirSync(inProject(folder), { recursive: true })
        .filter((name) => /\.(rs|mjs)$/.test(name))
        .map((name) => [`${folder}/${name}`, readFileSync(inProject(folder, name), "utf8")]),
    ),
  );
  const all = [...files.values()].join("\n");
  const invariants = sectionOf("ARCHITECTURE.md", "Invariants").split(/^(?=\d+\. )/m).slice(1);
  const rows = sectionOf("SECURITY.md", "What is defended, and what shows it").split("\n").filter((line) => line.startsWith("| ")).slice(2);
  const promises = [
    ...invariants.map((text) => ({ at: `ARCHITECTURE.md, invariant ${parseInt(text)}`, named: namedIn(text.split("—").slice(1).join(" ")) })),
    ...rows.map((row) => ({ at: `SECURITY.md, "${row.split("|")[1].trim()}"`, named: namedIn(row.split("|")[3], "attacks") })),
  ];
  const mistakes = promises.flatMap(({ at, named }) => [
    ...(named.length === 0 ? [`${at} names no test`] : []),
    ...named.filter((each) => !isThere(each)).map(({ what }) => `${at}: there is no ${what}`),
  ]);
  if (mistakes.length > 0) throw new Failure(mistakes.join("\n  "));
  say(`  ${promises.length} promises name ${promises.flatMap(({ named }) => named).length} tests, and all are there`);

  function isThere({ file, test, title }) {
    if (file !== undefined && !files.has(file)) return false;
    const text = file === undefined ? all : files.get(file);
    return (test === undefined || text.includes(`fn ${test}(`)) && (title === undefined || text.includes(`"${title}"`));
  }
}

function sectionOf(document, title) {
  const sections = readFileSync(inProject(document), "utf8").split(/^## /m);
  return sections.find((section) => section.startsWith(`${title}\n`)) ?? "";
}

// What a promise names: files, functions in Rust, titles of tests. What stands there alone is in the `folder` that was
// named before, or in this one.
function namedIn(promise, folder) {
  const text = promise.replace(/\s+/g, " ");
  const named = text.trimStart().startsWith("the same") ? [{ what: "test" }] : [];
  let inTests = TESTS[folder];
  for (const [whole, code, title] of text.matchAll(/`([^`]+)`|"([^"]+)"|\be2e\b/g)) {
    if (whole === "e2e") inTests = TESTS.e2e;
    else if (title !== undefined) named.push({ what: `test "${title}"`, title });
    else named.push(...tellsOf(code));
  }
  return named;

  function tellsOf(code) {
    const [place, test] = code.split(" ");
    const of = (file) => [{ what: code, file, test }];
    const tests = Object.keys(TESTS).find((name) => code === `tests/${name}/`);
    if (tests) inTests = TESTS[tests];
    else if (/^(src|tests)\/.*\.(rs|mjs)$/.test(place)) return of(place);
    else if (/^core::\w+$/.test(place)) return of(`tests/core/${place.slice(6)}.rs`);
    else if (/^(e2e|faults|attacks)\/[a-z-]+$/.test(place)) return of(`tests/${place}.test.mjs`);
    else if (/^[a-z0-9]+(_[a-z0-9]+){3,}$/.test(code)) return [{ what: code, test: code }];
    else if (/^[a-z]+(-[a-z]+)*$/.test(code) && inTests) return of(`${inTests}/${code}.test.mjs`);
    return [];
  }
}
