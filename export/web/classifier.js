// The bundle in a browser: tokenizer and model run in the page (onnxruntime-web, WASM), no text leaves it.
import { Tokenizer } from "./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const fetched = async (base, file, kind) => {
  const response = await fetch(new URL(file, base));
  if (!response.ok) throw new Error(`${response.url}: HTTP ${response.status}`);
  return response[kind]();
};

const softmax = (logits) => {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
};

/** Load the bundle at a URL that ends in "/"; the answer is a function from a text to its labels, likeliest first. */
export async function load(bundle) {
  ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
  // More threads need a page that is cross-origin isolated; the bundle was measured with few.
  ort.env.wasm.numThreads = 1;
  const [config, tokenizerJson, tokenizerConfig, model] = await Promise.all([
    fetched(bundle, "config.json", "json"),
    fetched(bundle, "tokenizer.json", "json"),
    fetched(bundle, "tokenizer_config.json", "json"),
    fetched(bundle, "model.onnx", "arrayBuffer"),
  ]);
  const { task, max_length: maxLength } = config.edgekd;
  if (task.name !== "text-classification" || task.pair) throw new Error(`${task.name}: this page classifies texts`);
  const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
  const cut = config.edgekd.truncation_side === "left"
    ? (all) => [all[0], ...all.slice(1 - maxLength)]
    : (all) => [...all.slice(0, maxLength - 1), all.at(-1)];
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });

  return async (text) => {
    const encoded = tokenizer.encode(text, { return_token_type_ids: true });
    const columns = {
      input_ids: encoded.ids,
      attention_mask: encoded.attention_mask,
      token_type_ids: encoded.token_type_ids,
    };
    const feeds = {};
    for (const name of session.inputNames) {
      const all = columns[name];
      // A text that is too long is cut, its special tokens are kept, as edgekd.runtime does.
      const kept = all.length > maxLength ? cut(all) : all;
      feeds[name] = new ort.Tensor("int64", BigInt64Array.from(kept, BigInt), [1, kept.length]);
    }
    const { logits } = await session.run(feeds);
    return softmax(Array.from(logits.data))
      .map((score, i) => ({ label: config.id2label[i], score }))
      .sort((a, b) => b.score - a.score);
  };
}
