"""What `sae-tutorial` does on a command line (`python -m sae_tutorial` is the same).

options       settings from a TOML file and from flags, with the help that stands beside their fields
sources       which model, which text, which hook: as named on the command line, or as a trained SAE remembers them
work          harvest, train, evaluate
page          report: an SAE as one HTML page
caches        models, clean: what is there, and what lies in the caches
"""
