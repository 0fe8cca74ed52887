"""Plotly figures, one module per topic. Data in, `Figure` out, nothing else."""
