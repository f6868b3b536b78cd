"""A trained model for elsewhere: torch.export, ONNX and Hugging Face's Hub."""
