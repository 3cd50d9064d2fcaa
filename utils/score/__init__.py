"""The learned score: networks, their derivatives, the sampler that uses them, and the regularizers."""
