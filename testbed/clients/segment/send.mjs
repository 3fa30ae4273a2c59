// Lets Segment's own client send calls: one a line on standard input, `{"kind": …, "call": …}`.
// For each call it prints a line once the client is done with it: the event as it was sent, and the error if it was lost.
// The last line counts the requests that the client has sent once more.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, host] = process.argv.slice(2);
const { Analytics } = createRequire(`${modules}/`)("@segment/analytics-node");
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const analytics = new Analytics({ writeKey: process.env.WRITE_KEY, host, flushInterval: 200 });
let retries = 0;
analytics.on("http_request", ({ headers }) => { if (headers["X-Retry-Count"]) retries += 1; });

for await (const line of createInterface({ input: process.stdin })) {
  const { kind, call } = JSON.parse(line);
  analytics[kind](call, (error, context) => print({ event: context.event, error: error ? String(error.reason ?? error) : null }));
}
await analytics.closeAndFlush();
print({ retries });
