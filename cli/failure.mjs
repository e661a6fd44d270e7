// What goes wrong, as a person reads it: one sentence, and an exit code for scripts.

export const EXIT = {
  /** The gateway refused, or an audit found a difference. */
  refused: 1,
  /** The command line is wrong. */
  usage: 2,
  /** There was no answer, or none to rely on: the same again is safe with the same Idempotency-Key. */
  unanswered: 3,
};

export class Failure extends Error {
  /** @param {string} message @param {number} exitCode */
  constructor(message, exitCode) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** @param {string} message */
export const wrongUsage = (message) => new Failure(message, EXIT.usage);

/**
 * A refusal, from what came with it: a problem document, or whatever somebody in between answered.
 * @param {Response} response
 * @param {unknown} problem
 */
export function refusalOf(response, problem) {
  const { detail, code, request_id } = /** @type {Record<string, unknown>} */ (Object(problem));
  if (typeof detail !== "string" || typeof code !== "string") {
    const message = `${new URL(response.url).origin} answered ${response.status}, and not as Tollgate does`;
    return new Failure(message, EXIT.unanswered);
  }
  const exitCode = response.status === 503 ? EXIT.unanswered : EXIT.refused;
  return new Failure(`${detail} (${code}, ${response.status}, ${request_id})`, exitCode);
}
