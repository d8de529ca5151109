"""Media in and out: films, sounds and pictures, through FFmpeg (PyAV), soundfile and Pillow."""

from mmtok.media.audio import AudioClip, read_audio, stream_audio, write_wav, write_wav_blocks
from mmtok.media.container import MediaInfo, probe, require_writable
from mmtok.media.errors import MediaError
from mmtok.media.image import read_image, write_png
from mmtok.media.preview import contact_sheet, spectrogram_image, write_preview
from mmtok.media.video import FILM_SUFFIXES, FilmWriter, VideoClip, read_video, stream_video, write_film

__all__ = [
    "FILM_SUFFIXES",
    "AudioClip",
    "FilmWriter",
    "MediaError",
    "MediaInfo",
    "VideoClip",
    "contact_sheet",
    "probe",
    "read_audio",
    "read_image",
    "read_video",
    "require_writable",
    "spectrogram_image",
    "stream_audio",
    "stream_video",
    "write_film",
    "write_png",
    "write_preview",
    "write_wav",
    "write_wav_blocks",
]
