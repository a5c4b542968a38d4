"""A plug-in: VOC and COCO data, detectors, average precision, and their export, check and bench."""
