"""The reaching experiment: methods, episodes, films."""
