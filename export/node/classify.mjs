// Answer texts in Node with transformers.js: node classify.mjs [--bundle FOLDER] TEXT...
// First, here: npm install --ignore-scripts (the post-install script would download GPU libraries).
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

// Before onnxruntime is imported: its builds for Linux send events unless they are told not to.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { env, pipeline } = await import("@huggingface/transformers");

const here = path.dirname(fileURLToPath(import.meta.url));

const PIPELINES = {
  "text-classification": "text-classification",
  "multi-label-classification": "text-classification",
  "token-classification": "token-classification",
};

/** Load a bundle; the precision is the one that was validated (`transformers.js_config` in its config.json). */
export async function load(bundle) {
  const folder = path.resolve(bundle);
  const { task, threads, max_length, truncation_side } = JSON.parse(readFileSync(path.join(folder, "config.json"), "utf8")).edgekd;
  const name = task.pair ? undefined : PIPELINES[task.name];
  if (name === undefined) throw new Error(`${folder}: transformers.js has no pipeline for its task, use client.mjs`);
  if (truncation_side === "left") throw new Error(`${folder}: transformers.js keeps no text's end, use client.mjs`);
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(folder) + path.sep;
  const loaded = await pipeline(name, path.basename(folder), { session_options: { intraOpNumThreads: threads } });
  loaded.tokenizer = closing(loaded.tokenizer, max_length);
  return loaded;
}

/** transformers.js cuts the closing special token off a text that is too long; the model was trained with it. */
function closing(tokenizer, maxLength) {
  const last = tokenizer("").input_ids.data.at(-1);
  return new Proxy(tokenizer, {
    apply(target, self, args) {
      const inputs = Reflect.apply(target, self, args);
      const { dims: [texts, length], data } = inputs.input_ids;
      for (let i = 1; length === maxLength && i <= texts; i++) {
        if (inputs.attention_mask.data[i * length - 1]) data[i * length - 1] = last;
      }
      return inputs;
    },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    options: { bundle: { type: "string", default: path.resolve(here, "../..") } },
    allowPositionals: true,
  });
  const classify = await load(values.bundle);
  for (const text of positionals) console.log(JSON.stringify({ text, answer: await classify(text) }));
}
