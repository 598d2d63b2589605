"""What keeps latents apart from each other."""
