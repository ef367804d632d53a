"""Values and gradients recorded from reference implementations; `python -m tests.golden FOLDER` runs ours on them."""
