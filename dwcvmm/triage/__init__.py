"""What a kept divergence shows."""
