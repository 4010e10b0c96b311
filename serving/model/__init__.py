"""The model as training and serving share it: preprocessing, network, directory on disk, prediction."""
