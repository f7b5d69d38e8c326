"""Judging what a model wrote: IFEval's verifiable instructions, and AlpacaEval's win rates from recorded judgments.

Nothing here needs torch, a network or a judge that answers: responses and judgments are read from files.
"""
