"""What a run will cost, before anything of it runs: time from short trials here, memory and disk by counting.

Time: a training step, a forward pass, the twin's pass over an image and the reading of images are each done a few
times at small size, and multiplied by how often the recipe does them. Memory: the tensors that a training step keeps
for its backward pass are counted on torch's meta device, which computes nothing; parameters, data and the program come
on top.
"""

from neuroprior.experiment.forecast.cost import AssumedGPUs, Cost, Forecast, forecast

__all__ = ["AssumedGPUs", "Cost", "Forecast", "forecast"]
