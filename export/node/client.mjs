// Ask the serving process (deploy/docker/serve.py) from Node, without any dependency:
// node client.mjs [--url http://127.0.0.1:8000] TEXT...
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** Answers to texts, in order; an error carries the server's own line and the HTTP status. */
export async function predict(url, texts, { timeoutMs = 5000 } = {}) {
  // Behind a proxy the server may stand below a path.
  const response = await fetch(new URL("predict", url.endsWith("/") ? url : `${url}/`), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ texts }),
    signal: AbortSignal.timeout(timeoutMs),
  });
  const content = await response.json();
  if (!response.ok) throw Object.assign(new Error(content.error), { status: response.status });
  return content.answers;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  let url = "http://127.0.0.1:8000";
  try {
    const { values, positionals } = parseArgs({
      options: { url: { type: "string", default: url } },
      allowPositionals: true,
    });
    url = values.url;
    if (!positionals.length) throw new Error("no text: node client.mjs [--url URL] TEXT...");
    for (const answer of await predict(url, positionals)) console.log(JSON.stringify(answer));
  } catch (error) {
    console.error(`error: ${error.status ?? url}: ${error.cause?.message || error.message}`);
    process.exitCode = 1;
  }
}
