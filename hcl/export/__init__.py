"""Export of a trained model: torch.export, ONNX and Hugging Face's Hub."""
