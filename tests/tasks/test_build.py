import subprocess
import sys

import pytest

from edgekd.settings.task import (
    TASKS,
    JointIntentSlots,
    MultiLabelClassification,
    TextClassification,
    TextRegression,
    TokenClassification,
)
from edgekd.tasks.build import build_task


@pytest.mark.parametrize(
    ("spec", "head", "metric"),
    [
        (TextClassification(), "sequence", "accuracy"),
        (TokenClassification(), "token", "span F1"),
        (MultiLabelClassification(), "sequence", "macro F1"),
        (TextRegression(), "sequence", "Spearman correlation"),
        (JointIntentSlots(), "joint", "semantic accuracy"),
    ],
)
def test_a_task_is_built_by_its_name(spec, head, metric):
    task = build_task(spec, ["O", "B-x"])
    assert (task.spec, task.labels, task.head, task.metric_name) == (spec, ("O", "B-x"), head, metric)


def test_every_task_is_known_by_its_own_name():
    assert {name: kind().name for name, kind in TASKS.items()} == {name: name for name in TASKS}


def test_no_task_imports_torch():
    code = (
        "import sys\n"
        "from edgekd.tasks.build import build_task\n"
        "from edgekd.settings.task import TASKS\n"
        "for spec in TASKS.values(): build_task(spec(), ['O'])\n"
        "assert not {'torch', 'transformers', 'onnxruntime', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
