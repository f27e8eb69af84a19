"""Constants of normalization, none of which is in a state dict."""

MEAN = (0.485, 0.456, 0.406)  # of RGB images in [0, 1]: ImageNet's
STD = (0.229, 0.224, 0.225)
LAYER_NORM_EPS = 1e-6
BATCH_NORM_EPS = 1e-5
