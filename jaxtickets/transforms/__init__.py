"""Optax transforms for sparse training: wrap any optimizer, keep any training loop.

Each takes the optimizer and returns one; `state.mask` is the mask. A pruned weight and its moments
are exactly 0 after every step, whatever the optimizer inside does.
"""

from jaxtickets.masks.pruning import prune_to as prune_to
from jaxtickets.transforms._channel_removal import remove_channels as remove_channels
from jaxtickets.transforms._channel_removal import remove_channels_if as remove_channels_if
from jaxtickets.transforms._gradual_pruning import GradualPruningState as GradualPruningState
from jaxtickets.transforms._gradual_pruning import gradual_pruning as gradual_pruning
from jaxtickets.transforms._gradual_pruning import prune_if as prune_if
from jaxtickets.transforms._keep_masked import KeepMaskedState as KeepMaskedState
from jaxtickets.transforms._keep_masked import keep_masked as keep_masked
from jaxtickets.transforms._l1_masking import L1MaskingState as L1MaskingState
from jaxtickets.transforms._l1_masking import l1_masking as l1_masking
from jaxtickets.transforms._l1_masking import l1_penalty as l1_penalty
from jaxtickets.transforms._l1_masking import penalised as penalised
from jaxtickets.transforms._masked_update import MaskedStep as MaskedStep
from jaxtickets.transforms._masked_update import map_moments as map_moments
from jaxtickets.transforms._masked_update import mask_moments as mask_moments
from jaxtickets.transforms._masked_update import masked_step as masked_step
from jaxtickets.transforms._prune_grow import PruneGrowState as PruneGrowState
from jaxtickets.transforms._prune_grow import Regrown as Regrown
from jaxtickets.transforms._prune_grow import evolve_if as evolve_if
from jaxtickets.transforms._prune_grow import evolve_mask as evolve_mask
from jaxtickets.transforms._prune_grow import prune_grow as prune_grow
from jaxtickets.transforms._unit_exchange import ExchangedUnits as ExchangedUnits
from jaxtickets.transforms._unit_exchange import exchange_units as exchange_units
from jaxtickets.transforms._unit_exchange import exchange_units_if as exchange_units_if
