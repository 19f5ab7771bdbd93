"""`python -m anneal_trainer quickstart --out DIR`: a model and a data set to learn with, made offline."""
