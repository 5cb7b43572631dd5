"""TextRay finds lesions in chest images with the help of language."""

__version__ = "0.1.0"
