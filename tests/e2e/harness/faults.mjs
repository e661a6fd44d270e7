// Objects that fail on command. The bundle runs as it is deployed, but for an entry around its own that
// asks the test before and after each message to an object.
//
//   const faults = objectFaults(policy);
//   const gateway = await startGateway(t, { policy, more: faults.more });
//   faults.plan("lose", "pass");           // what happens to the next messages, in order; then all pass
//   faults.choose(() => "pass");           // what happens to those that nothing is planned for
//   faults.directory.plan("break");        // the same for the directory; without it, accounts are meant
//   faults.lookups.plan("break");          // the same for the objects that know imported keys
//
//   "pass"    the message is carried out and answered
//   "break"   the object throws before it carries the message out
//   "lose"    the message is carried out, and its answer lost
//   "delay"   it is carried out at once, and answered when `faults.release()` is called
//   "evict"   it is carried out, and the object ended before it answers: what it had in memory is gone
//
// A fault may have " retryable" or " overloaded" after it: what the runtime says about its own errors.
import { EventEmitter, once } from "node:events";
import { modulesOf } from "../../../scripts/runtime.mjs";
import { inProject } from "../../../scripts/project.mjs";

const ENTRY = `
import * as deployed from "./entry.js";
export * from "./entry.js";
export { default } from "./entry.js";

const faulty = (Deployed, kind) => class extends Deployed {
  async tell(message) {
    const [fault, ...flags] = (await this.#ask("start")).split(" ");
    const failure = Object.assign(new Error("a fault of the test's"), Object.fromEntries(flags.map((flag) => [flag, true])));
    if (fault === "break") throw failure;
    const answer = await super.tell(message);
    if (fault === "delay") await this.#ask("wait");
    if (fault === "lose") throw failure;
    if (fault === "evict") this.ctx.abort("evicted by the test");
    return answer;
  }

  async #ask(what) {
    return (await this.env.FAULTS.fetch("http://" + kind + "/" + what)).text();
  }
};

export class Account extends faulty(deployed.Account, "accounts") {}
export class Directory extends faulty(deployed.Directory, "directory") {}
export class ImportedKeys extends faulty(deployed.ImportedKeys, "lookups") {}
`;

export function objectFaults(policy) {
  const kinds = { accounts: faultsOfKind(), directory: faultsOfKind(), lookups: faultsOfKind() };
  const answerOf = ({ url }) => kinds[new URL(url).hostname].answerOf(new URL(url).pathname);
  return Object.assign(kinds.accounts, {
    directory: kinds.directory,
    lookups: kinds.lookups,
    more: {
      modules: [
        { type: "ESModule", path: inProject("dist", "faulty-entry.js"), contents: ENTRY },
        ...modulesOf(policy),
      ],
      serviceBindings: { FAULTS: async (request) => new Response(await answerOf(request)) },
    },
  });
}

function faultsOfKind() {
  const told = new EventEmitter().setMaxListeners(0);
  let planned = [];
  let choose = () => "pass";
  let messages = 0;
  let waiting = 0;

  async function answerOf(path) {
    if (path === "/wait") {
      waiting += 1;
      told.emit("waiting");
      await once(told, "release");
      return "";
    }
    messages += 1;
    told.emit("message");
    return planned.shift() ?? choose();
  }

  return {
    answerOf,
    // How many messages the objects were told so far.
    get messages() {
      return messages;
    },
    plan(...faults) {
      planned = faults;
      waiting = 0;
    },
    choose(chooser) {
      choose = chooser;
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
