"""What a run leaves behind: `trace` (facts of one episode), `curves` (PNG), `video` (mp4), `page` (HTML), `run_folder`.

numpy alone is imported here; matplotlib, pillow, ffmpeg and Jinja2 on the first picture or page (extra `video`).
"""
