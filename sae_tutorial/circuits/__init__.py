"""The model taken apart, and put together from features.

heads             what heads attend to, read and write
ioi               indirect-object sentences with their counterfactuals and measures
ioi_prompts       the classic eight prompts, and one of your own
patching          activations put in from elsewhere, path by path
direct_effects    what the heads of a circuit write, where they look, what they make of a name
edges             the model as a graph: what each edge is worth (EAP), which can go (ACDC)
feature_patching  patching with the features of any dictionary
feature_order     which features matter most
supervised        dictionaries made from labels, and the tests that they set
"""
