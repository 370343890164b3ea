"""Reference keyframes: selection, storage on disk, retrieval, and building maps from recordings."""
