"""What is told about a bundle, and how: the auditor's page, the model card, the rows of experiments."""
