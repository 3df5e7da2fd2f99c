"""Other networks whose layers stand in for a brain: VGG-19, and any network that can be imported or was exported."""

from neuroprior.networks.exciting import exciting_images_of_units
from neuroprior.networks.layer import network_details, population_from_network, target_from_network
from neuroprior.networks.load import load_network, load_network_folder
from neuroprior.networks.tuning import LayerTuning, Tuning, UnitTuning, sine_gratings, unit_tuning
from neuroprior.networks.vgg import VGG19, VGG_LAYER, load_vgg19, vgg_details, vgg_target

__all__ = [
    "VGG19",
    "VGG_LAYER",
    "LayerTuning",
    "Tuning",
    "UnitTuning",
    "exciting_images_of_units",
    "load_network",
    "load_network_folder",
    "load_vgg19",
    "network_details",
    "population_from_network",
    "sine_gratings",
    "target_from_network",
    "unit_tuning",
    "vgg_details",
    "vgg_target",
]
