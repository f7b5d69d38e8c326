"""GRPO: sampled completions, their rewards, and the loss that follows from them."""
