from edgekd.proof.validate import Change, Validation
from edgekd.records.result import Criterion
from edgekd.report.validation import validation_table


def test_a_table_for_people():
    slow = Criterion(
        kind="latency", name="latency p95", limit=10, unit="ms", value=11.234, outcome="missed", explanation="a | b"
    )
    found = Validation(
        outcome="missed", exit_code=1, criteria=(slow,), notes=("no *evidence*",),
        changes=(Change(what="onnxruntime", then="1.31", now=None),),
    )  # fmt: skip
    assert validation_table(found, "my_bundle").splitlines() == [
        "### ✗ my\\_bundle: missed", "",
        "| Outcome | Criterion | Limit | Found | Why |",
        "| --- | --- | --- | --- | --- |",
        "| ✗ missed | latency p95 | ≤ 10 ms | 11.2 ms | a \\| b |", "",
        "Changed since it was made:", "", "- onnxruntime: 1.31 → none", "",
        "- no \\*evidence\\*", "",
    ]  # fmt: skip
