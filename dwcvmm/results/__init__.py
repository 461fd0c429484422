"""What is written down: schemas of result files, and how they are made from machines that ran."""
