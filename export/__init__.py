"""Models become ONNX files that are proven equal. Torch lives here alone, and is imported only when it is needed."""
