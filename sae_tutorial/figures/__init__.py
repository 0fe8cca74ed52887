"""Numbers in, figures and tables out: what notebooks, reports and widgets share.

text       tokens, text and numbers as labels
style      the theme, the colours, and how a title is set
looks      the colour, dash and marker of each method
frame      panels, lines across and upright, logarithmic axes; and what to show where nothing is
kinds      lines, dots, bars, intervals, strips, histograms and maps: most figures are a call of one of these
drawings   ideas as boxes, arrows and words, in the colours of the page
contexts   positions where a feature is active
tables     tables that read well anywhere
heads      attention
densities  how often features fire, and laws of it
grid       the benchmark grid
circuits   patching maps and graphs

feature_graph     circuits of features: tokens across, layers up
feature_report    one HTML page for each feature, and a file of them
neuronpedia       the same as files that Neuronpedia reads
"""
