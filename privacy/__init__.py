"""A guarantee for the people in the training data, and attacks that check it."""
