"""SAEs judged by tasks: what one can do with features, beside how well they reconstruct."""
