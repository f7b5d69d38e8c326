"""Studies: a sweep with a fraction of a factorial design, from its records to effects, variance, figures and a page."""
