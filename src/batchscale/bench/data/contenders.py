"""The contenders' names. A further one is its name here and its function in ``loaders``."""

from __future__ import annotations

FEED, PACKED, PROCESSES = "batchscale", "batchscale_packed", "batchscale_processes"
OURS = (FEED, PACKED, PROCESSES)

PIL = "dataloader_pil"
ON_DISK = (FEED, PACKED, PROCESSES, PIL, "dataloader_v2", "dataloader_torchcodec", "dataloader_opencv")
"""Of images on disk: the feed on class folders, on their packed form, with decoding processes; ImageFolder and a
DataLoader, four ways."""

TORCHVISION = "dataloader_torchvision"
IN_MEMORY = (FEED, TORCHVISION, "dataloader_tensor")
"""Of images in memory: the feed; torchvision's own class, or tensors, and a DataLoader."""

PACKAGES = {"dataloader_torchcodec": "torchcodec", "dataloader_opencv": "cv2"}
"""The module that a contender needs beside torch and torchvision."""

INSTALLED_BY = {"torchcodec": "torchcodec", "cv2": "opencv-python-headless"}
"""Module -> what to install for it."""
