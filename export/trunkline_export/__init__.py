"""Export of trained models as multi-output ONNX graphs in bundles."""
