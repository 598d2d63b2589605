"""Encoders of clouds and sounds, pretrained on a log and compared with controls at jobs of the robot."""
