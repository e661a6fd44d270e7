// Account objects that fail on command. The bundle runs as it is deployed, but for an entry around its
// own that asks the test before and after each message to an object.
//
//   const faults = objectFaults(policy);
//   const gateway = await startGateway(t, { policy, more: faults.more });
//   faults.plan("lose", "pass");           // what happens to the next messages, in order; then all pass
//
//   "pass"    the message is carried out and answered
//   "break"   the object throws before it carries the message out
//   "lose"    the message is carried out, and its answer lost
//   "delay"   it is carried out at once, and answered when `faults.release()` is called
//
// A fault may have " retryable" or " overloaded" after it: what the runtime says about its own errors.
import { EventEmitter, once } from "node:events";
import { modulesOf } from "../../../scripts/runtime.mjs";
import { inProject } from "../../../scripts/project.mjs";

const ENTRY = `
import { Account as Deployed } from "./entry.js";
export * from "./entry.js";
export { default } from "./entry.js";

export class Account extends Deployed {
  async tell(message) {
    const [fault, ...flags] = (await this.#ask("start")).split(" ");
    const failure = Object.assign(new Error("a fault of the test's"), Object.fromEntries(flags.map((flag) => [flag, true])));
    if (fault === "break") throw failure;
    const answer = await super.tell(message);
    if (fault === "delay") await this.#ask("wait");
    if (fault === "lose") throw failure;
    return answer;
  }

  async #ask(what) {
    return (await this.env.FAULTS.fetch("http://faults/" + what)).text();
  }
}
`;

export function objectFaults(policy) {
  const told = new EventEmitter().setMaxListeners(0);
  let planned = [];
  let messages = 0;
  let waiting = 0;

  async function answerOf(request) {
    if (request.url.endsWith("/wait")) {
      waiting += 1;
      told.emit("waiting");
      await once(told, "release");
      return "";
    }
    messages += 1;
    told.emit("message");
    return planned.shift() ?? "pass";
  }

  return {
    more: {
      modules: [
        { type: "ESModule", path: inProject("dist", "faulty-entry.js"), contents: ENTRY },
        ...modulesOf(policy),
      ],
      serviceBindings: { FAULTS: async (request) => new Response(await answerOf(request)) },
    },
    // How many messages the objects were told so far.
    get messages() {
      return messages;
    },
    plan(...faults) {
      planned = faults;
      waiting = 0;
    },
    // Resolves when an answer is held back.
    async held() {
      while (waiting === 0) await once(told, "waiting");
    },
    // Resolves when `count` messages have been told in all.
    async told(count) {
      while (messages < count) await once(told, "message");
    },
    release() {
      waiting = 0;
      told.emit("release");
    },
  };
}
