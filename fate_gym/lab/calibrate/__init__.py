"""Constants of the cost model for one's own GPU: measure, fit, write, show (docs/cost-model.md)."""
