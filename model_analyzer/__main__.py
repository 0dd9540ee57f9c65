"""`python -m model_analyzer` is `model-analyzer`."""

from model_analyzer.cli.main import main

main()
