"""How good an SAE is, and what its features answer to.

intervals         how sure one can be: over seeds, over sentences
splicing          a reconstruction put in the place of what it reconstructs, inside the model
steered_text      what a model writes while something is added at a hook
text_losses       how likely it finds a text when it has read something else
fidelity          `evaluate`: L0, FVU, loss recovered, dead and underused features
together          several hooks replaced at once, such as every MLP by its transcoder
ground_truth      data whose features are known, and how well a dictionary finds them again
contexts          where in a text a feature answers
feature_evidence  what every feature does on a text, found in one pass
feature_pages     what a reader is shown of a feature
explanations      what a feature is said to be about, and how well that predicts it
dark_matter       what an SAE leaves out: a linear part, and the rest
chat              a language model that is asked, over HTTP or in this process
chat_judge        such a model as explainer and as judge
properties        of a token, which a reader can check
labelled          yes-or-no tasks about tokens and rows, and words with their properties
examples          their activations, read once; random SAEs and bare coordinates to compare with
probing           how well a few features answer a question, beside the whole activation
absorption        features that are silent where a narrower one speaks for them
concept_removal   a property taken away with a few features, and what else goes with it
disentanglement   one attribute changed with a few features, and what else changes
model_scores      what an explanation is worth to a model that only reads: surprisal, embedding, intervention
"""

from sae_tutorial.evaluation.fidelity import Evaluation, evaluate, evaluate_many

__all__ = ["Evaluation", "evaluate", "evaluate_many"]
