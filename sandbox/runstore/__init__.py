"""What the pipelines API keeps, in one SQLite file: runs and tasks, experiments, pipelines and their versions."""
