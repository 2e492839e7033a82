"""The diffusion policy: what it sees, how it is noised, denoised, normalised, averaged and stored."""
