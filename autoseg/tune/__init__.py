"""12. Searching hyper-parameters: the space, what is tried next, the study, its report. Trials are run by launch."""
