"""Instructions that a program can verify (IFEval): prompts, checkers of 25 kinds, verdicts on responses."""
