"""What a network did with a film and its words: attention, weight of each word, counterfactuals by zone."""
