"""The studies of the studio in gallery order."""

__all__ = ["CATALOG"]

from studio.studies.conformers import Conformers
from studio.studies.continual import ContinualTasks
from studio.studies.diverse_images import DiverseImages
from studio.studies.ensemble import Ensemble
from studio.studies.firefly import Firefly
from studio.studies.fusedream import FuseDream
from studio.studies.grow_and_prune import GrowAndPrune
from studio.studies.landscapes import Landscapes
from studio.studies.prune import Prune
from studio.studies.split_images import SplitImages
from studio.studies.split_toy import SplitToy
from studio.studies.study import Study

CATALOG: tuple[type[Study], ...] = (
    FuseDream,
    DiverseImages,
    Landscapes,
    Ensemble,
    Conformers,
    SplitToy,
    SplitImages,
    Firefly,
    ContinualTasks,
    Prune,
    GrowAndPrune,
)
