"""An EdgeKD bundle as an MLflow model of the flavour python_function. Needs mlflow and edgekd[runtime].

    mlflow.pyfunc.log_model(name="intents", python_model="model.py", artifacts={"bundle": "bundle"})

The input is a list of texts, or a table with the column "text" (pairs: "text_pair" too); the output a list with an
answer each, as of `edgekd.load(bundle).predict(texts)`. MLflow keeps this file as it is: nothing is pickled.
"""

import mlflow


class Bundle(mlflow.pyfunc.PythonModel):
    """Loads the bundle once, and answers."""

    def load_context(self, context):
        from edgekd.runtime import load

        self.model = load(context.artifacts["bundle"])

    def predict(self, context, model_input, params=None):
        return self.model.predict(_texts(model_input), all_scores=bool((params or {}).get("all_scores", False)))


def _texts(given):
    if not hasattr(given, "columns"):
        return [text if isinstance(text, str) else list(text) for text in given]
    columns = [name for name in ("text", "text_pair") if name in given.columns] or list(given.columns)[:1]
    rows = given[columns].to_numpy().tolist()
    return rows if len(columns) == 2 else [text for (text,) in rows]


mlflow.models.set_model(Bundle())
