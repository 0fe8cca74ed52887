"""Numbers in, figures and tables out: what notebooks, reports and widgets share.

style      the theme, the colours, and how a title is set
looks      the colour and mark of each method
text       tokens as labels
tables     tables that read well anywhere
heads      attention
densities  how often features fire, and laws of it
grid       the benchmark grid
circuits   patching maps and graphs
"""
