"""What the scripts share: claims and verdicts, results on disk, the table, data and small training loops."""
