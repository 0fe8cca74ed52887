"""The model taken apart, and put together from features.

prompts           texts of which some positions have names, and what the model predicts at their ends
heads             what heads attend to, read and write
patching          activations put in from elsewhere, path by path
ioi               sentences with an indirect object, their counterfactuals and measures
greater_than      spans of years, of which the end must be later than the start
direct_effects    what the heads of a circuit write, and where they look
edges             the model as a graph: what each edge is worth (EAP), which can go (ACDC)
discrete          heads found by what codes of their outputs only positive prompts have
attention_features  features of attention outputs, split over heads, source positions and what had been written there
transcoder_weights  what transcoders read and write, whatever the input
transcoder_circuits  what makes their features fire: earlier features, heads, embeddings, errors; the sum is exact
transcoder_graph  the strongest paths to a feature or a logit, merged into a graph
feature_patching  patching with the features of any dictionary
"""
