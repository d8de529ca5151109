"""Media to tokens and back: images, video, sound and text."""

from mmtok import compat as _compat

_compat.make_importable()  # before anybody imports torchaudio or a model class of transformers
