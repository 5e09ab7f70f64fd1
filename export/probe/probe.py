"""Measure this device for EdgeKD. It needs Python 3.11, numpy and onnxruntime; everything else lies beside it.

python probe.py [--threads N] [--out device.json]
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - which Python a device has is not ours to choose
    sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure this device and write device.json.")
    parser.add_argument("--threads", type=int, help="CPU threads to measure with (default: the kit's)")
    parser.add_argument("--out", type=Path, default=Path("device.json"))
    options = parser.parse_args(arguments)
    try:
        from edgekd.errors import EdgekdError
        from edgekd.latency import machine
        from edgekd.remote import kit
        from edgekd.store import check_file
    except ModuleNotFoundError as error:
        return fail(f"{error.name} is missing: pip install numpy onnxruntime", 3)
    try:
        check_file(options.out)
        content = kit.open_kit(HERE, "plan-kit")
        session = content["session"] | ({"threads": options.threads} if options.threads is not None else {})
        machine.check_threads(session["threads"])
        write(options.out, content, session)
    except EdgekdError as error:
        return fail(str(error), int(error.exit_code))
    except OSError as error:
        return fail(f"{error.filename or 'this device'}: {error.strerror}", 4)
    except KeyboardInterrupt:
        return fail("interrupted: nothing was written", 130)
    return 0


def write(out, content, session):
    """Measure every graph at every length, those of one precision and width side by side, and write the file."""
    from edgekd.remote import kit

    graphs = []
    with tempfile.TemporaryDirectory(prefix="edgekd-probe-") as folder:
        # The graphs point to weights in their own folder, which may be read-only: both are laid out here.
        place = Path(folder)
        for graph in content["graphs"]:
            (place / Path(graph["file"]).name).write_bytes((HERE / graph["file"]).read_bytes())
        kit.write_weights(place, content["weights"])
        groups = sorted({(graph["group"], length) for graph in content["graphs"] for length in content["lengths"]})
        for i, (group, length) in enumerate(groups):
            mine = [graph for graph in content["graphs"] if graph["group"] == group]
            graphs += measure(place, mine, length, content, session)
            print(f"measured {i + 1} of {len(groups)} groups of graphs", file=sys.stderr)
    described = kit.describe_here()
    kit.write_sealed(
        out,
        described
        | {
            "schema_version": kit.SCHEMA_VERSION,
            "kind": "device",
            "edgekd": content["edgekd"],
            "writer": content["writer"],
            "session": session,
            "batch_size": content["batch_size"],
            "graph_options": content["graph_options"],
            "teachers": content["teachers"],
            "text_work_ms": kit.text_work_ms(),
            "clock": kit.KitTarget(session).clock,
            "graphs": graphs,
            "finished": datetime.now(UTC).isoformat(),
        },
    )
    print(f"written: {out}; take it to the machine that made this kit: edgekd probe add {out.name}", file=sys.stderr)


def measure(place, graphs, length, content, session):
    """The graphs of one group at one length: what the table of one width and precision is fitted to."""
    from edgekd.latency.interval import steady_medians
    from edgekd.latency.measure import compare
    from edgekd.latency.timer import GraphJob
    from edgekd.remote.kit import KitTarget

    jobs = [
        GraphJob(str(i), place / Path(graph["file"]).name, content["batch_size"], length, content["vocabulary"])
        for i, graph in enumerate(graphs)
    ]
    target = KitTarget(session)
    found = compare(jobs, target, processes=1, rounds=content["rounds"], calls=content["calls"])
    medians = steady_medians(found, target.clock)
    return [
        {
            "teacher": graph["teacher"],
            "shape": graph["shape"],
            "precision": graph["precision"],
            "length": length,
            "median_ms": medians[job.name],
            "measurement": found[job.name].to_json(),
        }
        for graph, job in zip(graphs, jobs, strict=True)
    ]


def fail(line, code):
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
