"""Camera encoders of ours, pretrained on a log and compared with controls on what a robot needs of them."""
