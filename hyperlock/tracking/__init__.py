"""Where a run's figures go: what a sink does (`tracker`), MLflow as one (`mlflow`), whose run it is
(`origin`), and its pictures (`plots`, drawn in the style that a sweep's are drawn in too)."""
