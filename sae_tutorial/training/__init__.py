"""An SAE and a store of activations in, a trained SAE and its history out.

settings     `TrainSettings`: what can be chosen about a run
usage        which features fire how often, counted during a run
start        what a run begins with: a fresh SAE, or the features of another run (`with_rule`)
losses       what is to be made small, one pure function for each term
penalties    what rules without a budget pay, and how thresholds learn where to cut
optimiser    how weights follow the gradient
resampling   dead features, started again
history      the metrics of a run, step by step
step         one step of one SAE
checkpoint   a run that goes on where it stopped
checks       what `train` is given, checked before it changes anything
loop         `train` and `train_many`
"""

from sae_tutorial.training.loop import TrainingRun, train, train_many
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import with_rule

__all__ = ["TrainSettings", "TrainingRun", "train", "train_many", "with_rule"]
