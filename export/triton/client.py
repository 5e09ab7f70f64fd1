"""Ask a Triton server for this bundle's model, and print one answer a text.

    pip install "tritonclient[http]" tokenizers
    python client.py [--url 127.0.0.1:8000] [--model NAME] TEXT...

A model of text pairs takes the texts two by two. Triton serves tensors: tokens and labels are the client's, from the
tokenizer.json and config.json beside this file (in a bundle: in its root). Copy `Classifier` where you need it.
Exit codes: 0 done, 2 wrong usage, 3 a library is missing, 4 no answer.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE if (HERE / "tokenizer.json").is_file() else HERE.parent.parent
# Triton only joins requests of one length.
MULTIPLE = 16


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Ask a Triton server for this bundle's model.")
    parser.add_argument("--url", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--model", default=FOLDER.name, help="its name in the model repository (default: %(default)s)")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    options = parser.parse_args(arguments)
    try:
        return ask(options)
    except ModuleNotFoundError as error:
        return fail(f'{error.name} is missing: pip install "tritonclient[http]" tokenizers', 3)


def ask(options):
    """Print the answers, or one line that says why there are none; the exit code."""
    from tritonclient.utils import InferenceServerException

    try:
        classifier = Classifier(options.url, options.model)
        texts = [text.encode(errors="replace").decode() for text in options.texts]
        if classifier.task.get("pair"):
            if len(texts) % 2:
                return fail(f"{len(texts)} texts: this model takes pairs, so give the texts two by two", 2)
            texts = list(zip(texts[::2], texts[1::2], strict=True))
        for answer in classifier.predict(texts):
            print(json.dumps(answer, ensure_ascii=False))
    except FileNotFoundError as error:
        return fail(f"{error.filename}: missing; keep tokenizer.json and config.json beside this file", 2)
    except (InferenceServerException, OSError) as error:
        return fail(f"{options.url}: {error}", 4)
    return 0


def fail(line, code):
    print(f"error: {line}", file=sys.stderr)
    return code


class Classifier:
    """Texts in, answers out, as edgekd.runtime gives them; the model runs on the server."""

    def __init__(self, url, model, folder=FOLDER):
        import tritonclient.http
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Read here first: Tokenizer.from_file does not name the file that it misses.
        self.tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        self.task, self.max_length = config["edgekd"]["task"], config["edgekd"]["max_length"]
        self.pad_id = config.get("pad_token_id") or 0
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_length, direction=config["edgekd"].get("truncation_side", "right"))
        self.http, self.model = tritonclient.http, model
        self.server = self.http.InferenceServerClient(url.removeprefix("http://"))

    def predict(self, texts):
        """An answer a text (for a model of pairs: a tuple of two), in order."""
        served = self.server.get_model_config(self.model)
        answers = []
        for start in range(0, len(texts), served["max_batch_size"]):
            feed = self.tensors(texts[start : start + served["max_batch_size"]], served["input"])
            answers += self.answers(self.server.infer(self.model, feed).as_numpy("logits"))
        return answers

    def tensors(self, texts, inputs):
        """The model's inputs, (texts, tokens) each, padded to a multiple of 16 tokens and to no more than it takes."""
        import numpy as np

        encodings = self.tokenizer.encode_batch(texts)
        longest = max(len(encoding) for encoding in encodings)
        for encoding in encodings:
            encoding.pad(min(-(-longest // MULTIPLE) * MULTIPLE, self.max_length), pad_id=self.pad_id)
        attribute = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        feed = []
        for declared in inputs:
            kind = declared["data_type"].removeprefix("TYPE_")
            values = np.array([getattr(e, attribute[declared["name"]]) for e in encodings], dtype=kind.lower())
            feed.append(self.http.InferInput(declared["name"], list(values.shape), kind))
            feed[-1].set_data_from_numpy(values)
        return feed

    def answers(self, logits):
        """Logits (texts, labels) in words."""
        import numpy as np

        logits = logits.astype(np.float64)
        if self.task["name"] == "text-regression":
            return [{"value": float(row[0])} for row in logits]
        if self.task["name"] == "multi-label-classification":
            return [self.above(row, self.task.get("threshold", 0.5)) for row in 0.5 * (1 + np.tanh(0.5 * logits))]
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = powers / powers.sum(axis=-1, keepdims=True)
        return [{"label": self.labels[row.argmax()], "score": float(row.max())} for row in scores]

    def above(self, scores, threshold):
        """The labels above the threshold, the likeliest first."""
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return {
            "labels": [{"label": self.labels[i], "score": float(scores[i])} for i in order if scores[i] > threshold]
        }


if __name__ == "__main__":
    sys.exit(main())
