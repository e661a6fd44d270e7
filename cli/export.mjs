// An export on its way to standard output, line by line. A long one comes in parts.
import { once } from "node:events";
import { EXIT, Failure } from "./failure.mjs";

/**
 * Writes every line but those that say how to go on. The last one, `end`, is there or this fails.
 * @param {(next?: string) => Promise<import("./commands.mjs").Answer>} part the part that begins there
 */
export async function exportLines(part) {
  for (let next; ; ) {
    const answer = await part(next);
    if (!answer.response.ok) return answer;
    let last = "";
    for await (const line of linesOf(answer.data)) {
      last = line;
      if (typeOf(line) !== "unfinished" && !process.stdout.write(`${line}\n`)) await once(process.stdout, "drain");
    }
    if (typeOf(last) === "end") return answer;
    if (typeOf(last) !== "unfinished") throw new Failure("the export was cut off: it has no end", EXIT.unanswered);
    ({ next } = JSON.parse(last));
  }
}

/** @param {string} line */
const typeOf = (line) => /^\{"type":"([a-z]+)"[,}]/.exec(line)?.[1];

/** Whole lines; what a connection that breaks off leaves of one is none. @param {ReadableStream} stream */
async function* linesOf(stream) {
  let rest = "";
  const texts = stream.pipeThrough(new TextDecoderStream());
  // The types of the DOM do not know that a stream can be read so.
  for await (const text of /** @type {AsyncIterable<string>} */ (/** @type {unknown} */ (texts))) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
