"""Data sets of images and labels: PASCAL VOC, COCO-Stuff, any folder of images, generated scenes.

`hcl.data.dataset` opens all of them, as a `Dataset` of `hcl.data.samples`. Nothing here depends on a model,
and nothing here decodes images for training, which `pipelines` does.
"""
