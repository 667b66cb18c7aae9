"""From a checkpoint to what is deployed: a bundle for devices and a model repository for Triton."""
