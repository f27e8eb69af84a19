"""Training: configurations, sources of training pairs, and the training loop."""

from .config import TrainConfig
from .recipes import TRAINING, read_config
from .trainer import Trainer, TrainingError
from .world import World, joined

__all__ = ["TRAINING", "TrainConfig", "Trainer", "TrainingError", "World", "joined", "read_config"]
