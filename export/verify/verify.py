"""Prove a model on this device for EdgeKD. It needs Python 3.11, numpy, onnxruntime and tokenizers.

python verify.py [--out result.json]
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - which Python a device has is not ours to choose
    sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")

import argparse
import base64
import json
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUNDLE = HERE / "bundle"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure the model here, answer the test texts, write result.json.")
    parser.add_argument("--out", type=Path, default=Path("result.json"))
    parser.add_argument(
        "--clock", choices=("service", "response"), help="judge CPU time or the wall clock (default: the kit's)"
    )
    options = parser.parse_args(arguments)
    try:
        from edgekd import runtime  # noqa: F401 - only to see that tokenizers is there
        from edgekd.errors import EdgekdError
        from edgekd.latency import machine
        from edgekd.remote import kit
        from edgekd.store import check_file
    except ModuleNotFoundError as error:
        return fail(f"{error.name} is missing: pip install numpy onnxruntime tokenizers", 3)
    try:
        check_file(options.out)
        content = kit.open_kit(HERE, "verify-kit")
        machine.check_threads(content["session"]["threads"])
        write(options, content)
    except EdgekdError as error:
        return fail(str(error), int(error.exit_code))
    except OSError as error:
        return fail(f"{error.filename or 'this device'}: {error.strerror}", 4)
    except KeyboardInterrupt:
        return fail("interrupted: nothing was written", 130)
    return 0


def write(options, content):
    """Measure at the fixed length and on real texts, answer the test texts, and write what was found."""
    from edgekd.remote import kit

    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    target = kit.KitTarget(content["session"], options.clock or content["clock"])
    print(f"the budget is judged on {target.clock} time", file=sys.stderr)
    latency = {judge: measure(judge, texts[judge], content, target) for judge in ("fixed", "replay")}
    print(f"answering {len(texts['test'])} test texts", file=sys.stderr)
    rows, truncated = answer(texts["test"], content)
    described = kit.describe_here(("tokenizers",))
    kit.write_sealed(
        options.out,
        described
        | {
            "schema_version": kit.SCHEMA_VERSION,
            "kind": "result",
            "edgekd": content["edgekd"],
            "bundle": {name[7:]: checksum for name, checksum in content["files"].items() if name.startswith("bundle/")},
            "session": content["session"],
            "clock": target.clock,
            "latency": latency,
            "logits": base64.b64encode(rows.astype("<f4").tobytes()).decode(),
            "truncated": truncated,
            "finished": datetime.now(UTC).isoformat(),
        },
    )
    print(
        f"written: {options.out}; take it to the machine that made this kit: "
        f"edgekd validate BUNDLE --measured {options.out.name}",
        file=sys.stderr,
    )


def measure(judge, texts, content, target):
    """End to end, in processes of its own; the judged texts until the budget is decided, as `edgekd validate` does."""
    from edgekd.latency.judge import judge_budget
    from edgekd.latency.measure import measure_for
    from edgekd.latency.timer import BundleJob

    print(f"measuring on {judge} texts", file=sys.stderr)
    pairs = tuple(text if isinstance(text, str) else tuple(text) for text in texts)
    job = BundleJob(judge, BUNDLE, pairs, content["batch_size"])
    if judge != content["judge"]:
        return measure_for(job, target, content["reported_seconds"]).to_json()
    found = judge_budget(
        job, target, content["budget_ms"], content["percentile"], target.clock, looks=content["looks_seconds"]
    )
    print(f"  p{found.percentile:g} {found.value_ms:.3f} ms; {found.reason}", file=sys.stderr)
    return found.measurement.to_json()


def answer(texts, content):
    """Logit rows of the test texts, (rows, labels), and how many texts were cut."""
    from edgekd.runtime import load
    from edgekd.runtime.tokenise import encode_texts, encode_words, load_tokenizer

    model = load(BUNDLE, threads=content["session"]["threads"])
    tokenizer, length = load_tokenizer(BUNDLE), content["max_length"]
    if content["task"] == "token-classification":
        encodings = encode_words(tokenizer, texts, length)
    elif content["task"] == "joint-intent-slots":
        encodings = encode_words(tokenizer, texts, length).with_whole_rows()
    elif isinstance(texts[0], str):
        encodings = encode_texts(tokenizer, texts, None, length)
    else:
        encodings = encode_texts(tokenizer, [pair[0] for pair in texts], [pair[1] for pair in texts], length)
    return model.run(encodings, content["batch_size"]), int(encodings.truncated)


def fail(line, code):
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
