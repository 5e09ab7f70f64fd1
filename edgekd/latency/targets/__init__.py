"""Where a model runs: onnxruntime on the CPU, CUDA, TensorRT, and a fake for tests."""
