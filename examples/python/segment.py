"""Segments a photo with a file of `segformer export`, by numpy, Pillow and a TFLite runtime alone.

python segment.py model.tflite photo.jpg mask.png
"""

import sys
import zipfile

import numpy as np
from PIL import Image, ImageOps

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

model, photo, mask = sys.argv[1:]
names = zipfile.ZipFile(model).read("labels.txt").decode().split("\n")
interpreter = Interpreter(model)
interpreter.allocate_tensors()
entry, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[-1]
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
_, height, width, _ = entry["shape"]
fitted = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))  # pixels 0..255, as they are
interpreter.set_tensor(entry["index"], fitted[None].astype(entry["dtype"]))
interpreter.invoke()
scores = interpreter.get_tensor(logits["index"])[0].astype(np.float32)  # (height / 4, width / 4, classes)
ids = np.zeros((image.height, image.width), np.uint8)
best = np.full(ids.shape, -np.inf, np.float32)
for number in range(len(names)):  # one class at a time: all of them at the photo's size are gigabytes
    plane = np.asarray(Image.fromarray(scores[..., number]).resize(image.size, Image.Resampling.BILINEAR))
    ids[plane > best] = number
    best = np.maximum(best, plane)
Image.fromarray(ids).save(mask)
for number in np.unique(ids):
    print(f"{(ids == number).mean():6.1%} {names[number]}")
