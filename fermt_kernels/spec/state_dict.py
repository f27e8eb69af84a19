"""Keys of the authors' state dict."""

UNUSED_KEYS = ("backbone.cls_token", "backbone.pos_embed")  # no forward pass reads them
