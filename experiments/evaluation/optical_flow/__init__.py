"""Optical flow: recorded pairs of frames with exact flow, end-point errors, figures."""
