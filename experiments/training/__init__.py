"""What train.py writes down and watches."""
