"""walkcut: zero-shot brush pre-annotations for Label Studio, by random walks and normalised cuts."""
