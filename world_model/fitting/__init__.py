"""The parts of the training loop: settings, schedules, decay groups, layouts over processes, watching."""
