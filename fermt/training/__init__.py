"""Training: a configuration, where the pairs come from, and the run."""

from .config import TrainConfig
from .recipes import TRAINING, read_config
from .trainer import Trainer, TrainingError
from .world import World, joined

__all__ = ["TRAINING", "TrainConfig", "Trainer", "TrainingError", "World", "joined", "read_config"]
