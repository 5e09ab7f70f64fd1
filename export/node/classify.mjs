// Answer texts in Node with transformers.js: node classify.mjs [--bundle FOLDER] TEXT...
// First, here: npm install --ignore-scripts (the post-install script would download GPU libraries).
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { env, pipeline } from "@huggingface/transformers";

const here = path.dirname(fileURLToPath(import.meta.url));

/** Load a bundle; the precision is the one that was validated (`transformers.js_config` in its config.json). */
export async function load(bundle) {
  const folder = path.resolve(bundle);
  const task = JSON.parse(readFileSync(path.join(folder, "config.json"), "utf8")).edgekd.task;
  if (task.pair) throw new Error(`${folder}: pairs of texts have no transformers.js pipeline`);
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(folder) + path.sep;
  return pipeline(task.name, path.basename(folder), { session_options: { intraOpNumThreads: 1 } });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    options: { bundle: { type: "string", default: path.resolve(here, "../..") } },
    allowPositionals: true,
  });
  const classify = await load(values.bundle);
  for (const text of positionals) console.log(JSON.stringify({ text, answer: await classify(text) }));
}
