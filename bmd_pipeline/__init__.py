"""Fine-tune multimodal diffusion policies without losing their behavioural modes."""

__version__ = "0.1.0"
