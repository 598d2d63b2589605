"""From observations to latent states, and from goal images to places."""
