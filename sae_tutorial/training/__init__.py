"""An SAE and a store of activations in, a trained SAE and its history out.

settings     `TrainSettings`: what can be chosen about a run
usage        who fires how often
start        what a run begins with
rule_change  `with_rule`: the same weights under another rule
losses       what is to be made small, one pure function for each term
optimiser    how weights follow the gradient
resampling   dead features, started again
step         one step of one SAE
checkpoint   a run that goes on where it stopped
loop         `train` and `train_many`
"""

from sae_tutorial.training.loop import TrainingRun, train, train_many
from sae_tutorial.training.rule_change import with_rule
from sae_tutorial.training.settings import TrainSettings

__all__ = [
    "TrainSettings",
    "TrainingRun",
    "train",
    "train_many",
    "with_rule",
]
