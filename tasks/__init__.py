"""The deep learning: one module per kind, each a plain `run(params, job)`; no Flask, no Celery."""
