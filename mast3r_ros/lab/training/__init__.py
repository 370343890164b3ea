"""Training of pointmap networks: data, losses with the published recipe's exact form, and a resumable loop.

from mast3r_ros.lab.training import TrainConfig, train
train(TrainConfig.load("config/train/small.yaml"), Path("runs/small"))
"""
