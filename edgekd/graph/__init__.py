"""Shape and weights to ONNX: the student's own writer, foreign teachers, quantisation, parity."""
