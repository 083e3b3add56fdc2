// Runs programs, one after the other, in one process: Node takes longer to start and to warm up
// than most programs take. Each input line is a program, and each output line its result.

import { createInterface } from "node:readline";

const AsyncFunction = (async () => {}).constructor;
const names = ["AttachmentClient", "AttachmentError", "server", "headers", "record", "collection"];

/** The resources that keep Node from ending: connections in use, and timers. */
const pending = () => process.getActiveResourcesInfo().filter((each) => each !== "Immediate");

/** Waits until a separate process would have ended. */
async function ended(before) {
  for (let waits = 0; pending().length > before; waits += 1) {
    if (waits > 10_000) throw new Error(`It does not end: ${pending()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Runs a program with its own module, and the usual globals. */
async function run({ module, number, code, server, headers, record, collection }) {
  const before = pending().length;
  const globals = Object.getOwnPropertyDescriptors(globalThis);
  const { AttachmentClient, AttachmentError } = await import(`${module}?${number}`);
  const given = [AttachmentClient, AttachmentError, server, headers, record, collection];
  try {
    return (await new AsyncFunction(...names, code)(...given)) ?? null;
  } finally {
    await ended(before);
    Object.defineProperties(globalThis, globals);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).then(
    (returned) => ({ returned }),
    (error) => ({ failed: String(error?.stack ?? error) }),
  );
  console.log(JSON.stringify(answer));
}
