"""Stage `export_onnx`: a trained model as ONNX, and INT8 only where accuracy survives."""
