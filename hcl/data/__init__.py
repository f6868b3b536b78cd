"""Where images and labels are: PASCAL VOC, COCO-Stuff, any folder of images, generated scenes.

`hcl.data.dataset` opens all of them, as a `Dataset` of `hcl.data.samples`. Nothing here knows a model, and
nothing here decodes an image in order to train on it (that is `pipelines`).
"""
