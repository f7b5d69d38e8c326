"""The paper's numbered statements, evaluated by numbers: `statements` says what there is, `evaluate` judges it."""
