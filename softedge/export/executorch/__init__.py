"""ExecuTorch (.pte) for XNNPACK."""
