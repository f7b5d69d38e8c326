"""The paper's numbered statements, evaluated by numbers: `STATEMENTS` says what there is, `evaluate` judges it."""
