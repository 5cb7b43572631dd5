"""Use of trained networks without torch: bundle, ONNX runtime, predictor, batch."""
