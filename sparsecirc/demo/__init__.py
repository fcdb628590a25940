"""The main job on real data, and the built-in ``demo:`` networks that every command accepts."""
