"""Where images and labels are: PASCAL VOC, COCO-Stuff, any folder of images, generated scenes.

Import from `hcl.data.dataset`. Nothing here knows a model, and nothing here decodes an image in order to
train on it (that is `pipelines`).
"""
