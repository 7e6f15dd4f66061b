"""Text: words, stems, postings, highlights."""
